"""Default training settings, by the size of the base and the preset."""

from typing import Any, Literal

Preset = Literal["quick", "balanced", "careful"]
STEPS: dict[Preset, float] = {"quick": 0.5, "balanced": 1.0, "careful": 2.0}  # times the steps below

LEARNING_RATES = ("learning_rate_embedding", "learning_rate_text_encoder", "learning_rate_unet")
LARGEST_MINIATURE = 128  # px: width of the pictures of the largest base that the miniature presets are for
LARGEST_TINY = 64  # px

TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", *TEXT_ATTENTION)
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "fc1", "fc2")

# Mix-of-Show's choices for Stable Diffusion 1.x, at the rank that the paper uses.
FULL_SIZE: dict[str, Any] = {
    "rank": 8,
    "band_side": "top",
    "target": ATTENTION,
    "exclude_modules": (),
    "vectors": 2,
    "steps": 1000,
    "batch_size": 2,
    "learning_rate_embedding": 1e-3,
    "learning_rate_text_encoder": 1e-5,
    "learning_rate_unet": 1e-4,
    "noise_offset": 0.01,
    "masked_loss": True,
    "distillation_prompts": 32,
    "distillation_weight": 1.0,
    "caption_dropout": 0.0,
    "checkpoint_every": 100,
}
# The paper's rates for rotations: turning vectors by so little moves a weight far less than shifting them does.
FULL_SIZE_ROTATIONAL = {"learning_rate_text_encoder": 1e-3, "learning_rate_unet": 1e-2}
# Small weights bear, and need, larger steps; so few that the attention's alone cannot hold a subject; and so little
# knowledge of the world that what the loss does not ask for falls apart: so pictures are learned whole, and the prior
# weighs more than they do. Measured: of all layers the feed-forward ones carry a subject, the text's keys and values
# call for it, and the others only spread it into pictures of something else. Bands of the smallest singular values lose
# less by fusing than those of the largest, at two to three times the rate: see docs/results/archive/fusion-study.md.
TINY: dict[str, Any] = {
    "rank": 8,
    "band_side": "bottom",
    "target": (*FEED_FORWARD, "attn2.to_k", "attn2.to_v", *TEXT_ATTENTION),
    "exclude_modules": (),
    "vectors": 4,
    "steps": 240,
    "batch_size": 4,
    "learning_rate_embedding": 2e-3,
    "learning_rate_text_encoder": 0.0,
    "learning_rate_unet": 1e-2,
    "noise_offset": 0.0,
    "masked_loss": False,
    "distillation_prompts": 48,
    "distillation_weight": 4.0,
    "caption_dropout": 0.0,
    "checkpoint_every": 50,
}
# Pictures of 128 px show more of a subject, so there is more to learn: see docs/results/recipe.md. The narrowest layers
# have 64 directions, room for ten concepts of rank 6; wider bands learn a subject in fewer steps.
MINIATURE: dict[str, Any] = TINY | {
    "rank": 6,
    "steps": 400,
    "learning_rate_text_encoder": 5e-3,
    "learning_rate_unet": 1.5e-2,
}
MINIATURE_ROTATIONAL = {"band_side": "top", "learning_rate_unet": 3e-2}
# Where text and picture are attended to in a row, each has feed-forward layers and projections of its own. Words are
# frozen, so a trigger is called by the text's own layers.
MINIATURE_JOINT: dict[str, Any] = {
    "target": (
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"),
    ),
    "batch_size": 4,
    "learning_rate_unet": 1.5e-2,
}


def preset(resolution: int, mode: str, name: Preset = "balanced") -> dict[str, Any]:
    """Settings for a base that draws pictures `resolution` pixels wide, by the names of `TrainConfig`."""
    if resolution <= LARGEST_MINIATURE:
        chosen = TINY if resolution <= LARGEST_TINY else MINIATURE
        chosen = chosen | (MINIATURE_ROTATIONAL if mode == "rotational" else {})
    else:
        chosen = FULL_SIZE | (FULL_SIZE_ROTATIONAL if mode == "rotational" else {})
    return chosen | {"steps": round(chosen["steps"] * STEPS[name]), "resolution": resolution}
