"""Prompts as users of this field write them, turned into text embeddings by compel.

`(word:1.3)`, `(word)` and `[word]` weigh a word by 1.3, 1.1 and 1/1.1, nested ones multiply, `\\(` is a bracket;
prompts may be longer than the tokenizer's limit; BREAK begins a new run of the encoder; `<lora:name:0.8>` asks for a
concept by name.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from spectral_fusion.errors import InputError
from spectral_fusion.names import key, mentions, respell

FACTORS = {"(": 1.1, "[": 1 / 1.1}
BREAK = re.compile(r"(?<!\S)BREAK(?!\S)")
LORA_TAG = re.compile(r"<lora:([^:<>]+)(?::([^<>]*))?>")
SYNTAX = re.compile(r"\\(?P<escaped>[()\[\]\\])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<bracket>[()\[\]])")


def weigh(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt into texts with their weights: `a (red:1.3) dog` -> `[("a ", 1.0), ("red", 1.3), (" dog", 1.0)]`.

    A bracket that is never closed reaches to the end; a closing one that was never opened is text.
    """
    texts: list[str] = []
    spans: list[tuple[int, int, float]] = []  # of texts, and what weighs them; the inner ones come first
    opened: list[tuple[str, int]] = []

    def close(bracket: str, factor: float) -> bool:
        if not opened or opened[-1][0] != bracket:
            return False
        spans.append((opened.pop()[1], len(texts), factor))
        return True

    position = 0
    for match in SYNTAX.finditer(prompt):
        texts.append(prompt[position : match.start()])
        position = match.end()
        bracket = match["bracket"] or ""
        if match["escaped"]:
            texts.append(match["escaped"])
        elif bracket and bracket in "([":
            opened.append((bracket, len(texts)))
        else:
            kind = "[" if bracket == "]" else "("
            factor = float(match["weight"]) if match["weight"] else FACTORS[kind]
            if not close(kind, factor):
                texts.append(match.group())
    texts.append(prompt[position:])
    while opened:
        close(opened[-1][0], FACTORS[opened[-1][0]])
    return _join_equals(texts, _products(spans, len(texts)))


def weigh_parts(prompt: str) -> list[list[tuple[str, float]]]:
    """`weigh`, for each part between the words BREAK: a part begins in a new run of the text encoder."""
    parts: list[list[tuple[str, float]]] = [[]]
    for text, weight in weigh(prompt):
        first, *others = BREAK.split(text)
        parts[-1].append((first, weight))
        parts += [[(other, weight)] for other in others]
    written = [part for part in parts if any(text.strip() for text, _ in part)]
    return written or parts[:1]


def _products(spans: Sequence[tuple[int, int, float]], count: int) -> list[float]:
    """The product of the factors of all spans that hold each of `count` texts, in one pass over them."""
    starting: dict[int, list[tuple[int, float]]] = {}
    for first, end, factor in reversed(spans):  # the outer ones first
        starting.setdefault(first, []).append((end, factor))
    weights, open_now = [], [(count, 1.0)]
    for number in range(count):
        while open_now[-1][0] <= number:
            open_now.pop()
        for end, factor in starting.get(number, ()):
            if end > number:
                open_now.append((end, open_now[-1][1] * factor))
        weights.append(open_now[-1][1])
    return weights


def _join_equals(texts: list[str], weights: list[float]) -> list[tuple[str, float]]:
    """Neighbours of one weight as one text: cut anywhere else, a word would be read as two."""
    pieces: list[tuple[list[str], float]] = []
    for text, weight in zip(texts, weights, strict=True):
        if pieces and (pieces[-1][1] == weight or not text):
            pieces[-1][0].append(text)
        elif text:
            pieces.append(([text], weight))
    joined = [("".join(parts), weight) for parts, weight in pieces]
    return joined or [("", 1.0)]


def take_lora_tags(prompt: str) -> tuple[str, dict[str, float]]:
    """Take `<lora:name:0.8>` out of a prompt: the prompt without, and the weight of each name (1 where none is given).

    Raises:
        InputError: a weight that is no number, or two that differ.
    """
    weights: dict[str, float] = {}
    written: dict[str, str] = {}
    for name, weight in LORA_TAG.findall(prompt):
        name = written.setdefault(key(name), name)
        try:
            first, *second = (float(number) for number in (weight or "1").split(":", 1))
        except ValueError as error:
            raise InputError(f"<lora:{name}:{weight}> has no number as its weight; write <lora:{name}:1>") from error
        if second and second[0] != first:
            raise InputError(
                f"<lora:{name}:{weight}> has another weight for the text encoder; a concept has one for all, write "
                f"<lora:{name}:{second[0]:g}>"
            )
        weights[name] = weights.get(name, 0.0) + first
    return " ".join(LORA_TAG.sub(" ", prompt).split()) if weights else prompt, weights


def check_triggers(prompt: str, known: Sequence[str]) -> str:
    """The prompt with its triggers as `known` writes them: case and Unicode form do not matter to whoever types.

    Raises:
        InputError: it names a concept that is not loaded; `<rxe>` suggests `<rex>`.
    """
    if tag := LORA_TAG.search(prompt):
        raise InputError(
            f"{tag.group()} stands where it has no effect; write it in the picture's prompt, not a region's"
        )
    prompt = respell(prompt, known)
    for trigger in mentions(prompt):
        if trigger not in known:
            near = get_close_matches(trigger, known, n=1, cutoff=0.5)
            if near:
                advice = f"did you mean {near[0]}?"
            else:
                advice = f"known are {', '.join(known)}" if known else "add its concept"
            raise InputError(f"the prompt names {trigger}, which no loaded concept has; {advice}")
    return prompt
