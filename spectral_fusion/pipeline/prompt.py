"""Prompts as users of this field write them, turned into text embeddings by compel.

`(word:1.3)`, `(word)` and `[word]` weigh a word by 1.3, 1.1 and 1/1.1, nested ones multiply, `\\(` is a bracket;
prompts may be longer than the tokenizer's limit; `<lora:name:0.8>` asks for a concept by name.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from compel import Compel
from compel.prompt_parser import Conjunction, FlattenedPrompt
from diffusers import StableDiffusionPipeline
from torch import Tensor

from spectral_fusion.errors import InputError

FACTORS = {"(": 1.1, "[": 1 / 1.1}
LORA_TAG = re.compile(r"<lora:([^:<>]+)(?::([^<>]*))?>")
TRIGGER = re.compile(r"<[\w-]+>")
SYNTAX = re.compile(r"\\(?P<escaped>[()\[\]\\])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<bracket>[()\[\]])")


def encode_prompts(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """Text embeddings of prompts, padded to the length of the longest.

    A prompt longer than the text encoder's n positions is read in chunks of n, side by side.

    Returns:
        (prompts, k * n, width) in the text encoder's type and device.

    Raises:
        InputError: a prompt names a concept that the pipeline does not have.
    """
    compel = Compel(pipeline.tokenizer, pipeline.text_encoder, truncate_long_prompts=False)
    # compel measures prompts before it cuts them; the warning about their length would be mistaken.
    pipeline.tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    with torch.no_grad():
        embeddings = [_encode(compel, pipeline, prompt) for prompt in prompts]
        return torch.cat(compel.pad_conditioning_tensors_to_same_length(embeddings))


def _encode(compel: Compel, pipeline: StableDiffusionPipeline, prompt: str) -> Tensor:
    check_triggers(pipeline, prompt)
    # Expanded here, not by compel's manager: that one decodes and encodes again, which alters some texts.
    words = [(pipeline.maybe_convert_prompt(text, pipeline.tokenizer), weight) for text, weight in weigh(prompt)]
    embedding, _ = compel.build_conditioning_tensor_for_conjunction(Conjunction([FlattenedPrompt(words)]))
    return embedding


def weigh(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt into texts with their weights: `a (red:1.3) dog` -> `[("a ", 1.0), ("red", 1.3), (" dog", 1.0)]`.

    A bracket that is never closed reaches to the end; a closing one that was never opened is text.
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []

    def close(bracket: str, factor: float) -> bool:
        if not opened or opened[-1][0] != bracket:
            return False
        _, first = opened.pop()
        weights[first:] = [weight * factor for weight in weights[first:]]
        return True

    def add(text: str) -> None:
        texts.append(text)
        weights.append(1.0)

    position = 0
    for match in SYNTAX.finditer(prompt):
        add(prompt[position : match.start()])
        position = match.end()
        bracket = match["bracket"] or ""
        if match["escaped"]:
            add(match["escaped"])
        elif bracket and bracket in "([":
            opened.append((bracket, len(texts)))
        else:
            kind = "[" if bracket == "]" else "("
            factor = float(match["weight"]) if match["weight"] else FACTORS[kind]
            if not close(kind, factor):
                add(match.group())
    add(prompt[position:])
    while opened:
        close(opened[-1][0], FACTORS[opened[-1][0]])
    return _join_equals(texts, weights)


def _join_equals(texts: list[str], weights: list[float]) -> list[tuple[str, float]]:
    """Neighbours of one weight as one text: cut anywhere else, a word would be read as two."""
    joined: list[tuple[str, float]] = []
    for text, weight in zip(texts, weights, strict=True):
        if joined and (joined[-1][1] == weight or not text):
            joined[-1] = (joined[-1][0] + text, joined[-1][1])
        elif text:
            joined.append((text, weight))
    return joined or [("", 1.0)]


def take_lora_tags(prompt: str) -> tuple[str, dict[str, float]]:
    """Take `<lora:name:0.8>` out of a prompt: the prompt without, and the weight of each name (1 where none is given).

    Raises:
        InputError: a weight that is no number.
    """
    weights: dict[str, float] = {}
    for name, weight in LORA_TAG.findall(prompt):
        try:
            weights[name] = weights.get(name, 0.0) + float(weight or 1)
        except ValueError as error:
            raise InputError(f"<lora:{name}:{weight}> has no number as its weight; write <lora:{name}:1>") from error
    return " ".join(LORA_TAG.sub(" ", prompt).split()) if weights else prompt, weights


def known_triggers(pipeline: StableDiffusionPipeline) -> list[str]:
    """Triggers in a pipeline's tokenizer, each once however many vectors it has."""
    added = pipeline.tokenizer.get_added_vocab()
    return sorted(token for token in added if TRIGGER.fullmatch(token))


def check_triggers(pipeline: StableDiffusionPipeline, prompt: str) -> None:
    """Raises InputError where a prompt names a concept that the pipeline does not have: `<rxe>` suggests `<rex>`."""
    if tag := LORA_TAG.search(prompt):
        raise InputError(
            f"{tag.group()} stands where it has no effect; write it in the picture's prompt, not a region's"
        )
    known = known_triggers(pipeline)
    for trigger in TRIGGER.findall(prompt):
        if trigger not in known:
            near = get_close_matches(trigger, known, n=1, cutoff=0.5)
            if near:
                advice = f"did you mean {near[0]}?"
            else:
                advice = f"known are {', '.join(known)}" if known else "add its concept"
            raise InputError(f"the prompt names {trigger}, which no loaded concept has; {advice}")
