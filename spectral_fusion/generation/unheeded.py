"""What of the settings a picture will not show, on this base: said beforehand, so that nobody looks for it."""

from __future__ import annotations

from spectral_fusion.base.interface import Base
from spectral_fusion.base.prompt import BREAK, weigh_parts
from spectral_fusion.base.turns import settled, unknown_words
from spectral_fusion.generation.config import GenerateConfig


def unheeded(base: Base, config: GenerateConfig) -> list[str]:
    """A line for each setting, and each way of writing, that has no effect here."""
    texts = {"the prompt": config.prompt, "the negative prompt": config.negative_prompt}
    texts |= {f"the prompt of region {number}": region.prompt for number, region in enumerate(config.regions, 1)}
    notes = [note for text in texts.values() for note in unknown_words(text)]
    if config.negative_prompt.strip():
        notes += _of_negative(base, config)
    if not base.weighs_words:
        notes += [note for text in texts.values() for note in _of_weights(base, text)]
    for where, text in texts.items():
        if cut := base.unread(settled(text)):
            notes.append(f"the last {cut} tokens of {where} are not read: it is longer than this base takes")
    return list(dict.fromkeys(notes))


def _of_negative(base: Base, config: GenerateConfig) -> list[str]:
    if not base.takes_negative:
        return ["the negative prompt has no effect: this base takes none"]
    if config.guidance_scale <= 1:
        return [f"the negative prompt has no effect at a guidance scale of {config.guidance_scale:g}; raise it above 1"]
    return []


def _of_weights(base: Base, text: str) -> list[str]:
    """Brackets and BREAK, where a text encoder reads them as they stand."""
    plain = f"plain text on bases of the family {base.family}"
    notes = [f"BREAK is {plain}"] if BREAK.search(text) else []
    weighted = any(weight != 1 for part in weigh_parts(settled(text)) for _, weight in part)
    return [*notes, f"weights such as (word:1.3) are {plain}"] if weighted else notes
