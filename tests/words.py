"""Words of the only text encoder of a tiny base, for tests that look at one."""

from torch import Tensor

from spectral_fusion.base.sd import StableDiffusion

PART = "text_encoder"


def add_tokens(base: StableDiffusion, trigger: str, rows: Tensor) -> list[int]:
    """The ids of the new tokens."""
    base.add_words({trigger: {PART: rows}})
    return token_ids(base, trigger)


def add_all_tokens(base: StableDiffusion, triggers: dict[str, Tensor]) -> None:
    base.add_words({trigger: {PART: rows} for trigger, rows in triggers.items()})


def remove_tokens(base: StableDiffusion, trigger: str) -> None:
    base.remove_words([trigger])


def token_ids(base: StableDiffusion, trigger: str) -> list[int]:
    return base.texts[PART].token_ids(trigger)


def encode_prompts(base: StableDiffusion, prompts: list[str]) -> Tensor:
    """(prompts, tokens, width), as people's prompts are read."""
    return base.condition(prompts, weighted=True).embeds
