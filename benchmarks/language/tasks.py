"""What the models learn: questions and answers as words, each task with a shifted one to adapt to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import torch
from torch import Tensor

Part = Literal["train", "valid", "test"]
Words = list[str]
Pair = tuple[Words, Words]

NAMES = ("tom", "ann", "kit", "eve", "sam", "zoe")
THINGS = ("apples", "books", "coins", "stones", "cards", "shells")
LETTERS = tuple("abcdefghijklmnop")
HIGHEST, LONGEST = 60, 6
IGNORED = -100  # the label of what is not learned


@dataclass(frozen=True)
class Task:
    """Questions of one kind. Every word is one token; a number is a word.

    draw: a question and its answer from a source of randomness.
    """

    name: str
    draw: Callable[[random.Random], Pair]


def one_step(source: random.Random) -> Pair:
    """An addition or a subtraction in words."""
    name, thing = source.choice(NAMES), source.choice(THINGS)
    first, second = source.randrange(1, 31), source.randrange(1, 31)
    if source.random() < 0.5:
        return f"{name} has {first} {thing} . {name} gets {second} more . how many ?".split(), [str(first + second)]
    first, second = max(first, second), min(first, second)
    return f"{name} has {first} {thing} . {name} loses {second} . how many ?".split(), [str(first - second)]


def two_people(source: random.Random) -> Pair:
    """The shifted task: two owners, each with a number, and a question of the sum or of the difference."""
    first, second = source.sample(NAMES, 2)
    thing, one, two = source.choice(THINGS), source.randrange(1, 31), source.randrange(1, 31)
    told = f"{first} has {one} {thing} . {second} has {two} {thing} ."
    if source.random() < 0.5:
        return f"{told} how many together ?".split(), [str(one + two)]
    return f"{told} how many apart ?".split(), [str(abs(one - two))]


def _letters(source: random.Random) -> Words:
    return [source.choice(LETTERS) for _ in range(source.randrange(3, LONGEST + 1))]


def reverse_or_copy(source: random.Random) -> Pair:
    """A formal language: a word, and itself or its mirror image."""
    word = _letters(source)
    return (["copy", *word, "="], word) if source.random() < 0.5 else (["turn", *word, "="], word[::-1])


def next_letters(source: random.Random) -> Pair:
    """The shifted task: `turn` now means the mirror image with each letter replaced by the next one of the alphabet."""
    word = _letters(source)
    return ["turn", *word, "="], [LETTERS[(LETTERS.index(x) + 1) % len(LETTERS)] for x in word[::-1]]


TASKS = {
    task.name: task
    for task in (
        Task("one-step problems", one_step),
        Task("problems of two people", two_people),
        Task("copy and turn", reverse_or_copy),
        Task("turn and next", next_letters),
    )
}
WORDS = (
    *("<pad>", "<end>", *NAMES, *THINGS, "has", "gets", "more", "loses", "how", "many", "together", "apart", ".", "?"),
    *("copy", "turn", "next", "=", *LETTERS, *(str(number) for number in range(HIGHEST + 1))),
)
NUMBER = {word: number for number, word in enumerate(WORDS)}
LENGTH = 20  # the longest question with its answer and <end>


def part_of(question: Words) -> Part:
    """Each question belongs to one part for good: a tenth to the test, a tenth to the search of rates."""
    return {0: "test", 1: "valid"}.get(crc32(" ".join(question).encode()) % 10, "train")  # type: ignore[return-value]


def batch(task: Task, part: Part, count: int, seed: str) -> tuple[Tensor, Tensor]:
    """Token numbers and labels, (count, LENGTH) each; labels say what is learned: the answer and its end."""
    source = random.Random(f"{task.name} {part} {seed}")
    rows: list[list[int]] = []
    labels: list[list[int]] = []
    while len(rows) < count:
        question, answer = task.draw(source)
        if part_of(question) == part:
            asked, told = [NUMBER[word] for word in question], [NUMBER[word] for word in [*answer, "<end>"]]
            rest = LENGTH - len(asked) - len(told)
            rows.append([*asked, *told, *[NUMBER["<pad>"]] * rest])
            labels.append([*[IGNORED] * len(asked), *told, *[IGNORED] * rest])
    return torch.tensor(rows), torch.tensor(labels)


def without_padding(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The columns up to the end of the longest row: what is behind it changes nothing and costs as much."""
    used = int((rows != NUMBER["<pad>"]).any(0).nonzero().max()) + 1
    return rows[:, :used], labels[:, :used]


def exact_matches(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each answer is right in every token, (batch,). A greedy decoding would give the same answers.

    Up to the first wrong token both see the same words; after it the answer is wrong in both.
    """
    said, wanted = logits[:, :-1].argmax(2), labels[:, 1:]
    return ((said == wanted) | (wanted == IGNORED)).all(1)
