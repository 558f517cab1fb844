"""Settings of one training. Each is documented once, here: the command line reads its help texts from the fields."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from spectral_fusion.base.presets import LEARNING_RATES, Preset
from spectral_fusion.errors import InputError

Mode = Literal["additive", "rotational"]
BandSide = Literal["top", "bottom"]
Optimizer = Literal["adamw", "adamw8bit", "prodigy"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
Precision = Literal["fp32", "fp16", "bf16"]
PredictionType = Literal["epsilon", "v_prediction"]

OPEN: Any = None  # left to the base: `TrainConfig.resolved` fills it in


@dataclass(frozen=True)
class Setting:
    """What a field means to the user, where `--help` lists it, and whether the trained concept depends on it."""

    help: str
    panel: str
    flag: str | None = None
    shapes_result: bool = True


Subject = partial(Setting, panel="Concept")
Learning = partial(Setting, panel="Learning")
Loss = partial(Setting, panel="Loss")
Pictures = partial(Setting, panel="Pictures")
Speed = partial(Setting, panel="Speed", shapes_result=False)
Watching = partial(Setting, panel="Watching", shapes_result=False)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training. What is left open becomes what the base is best trained with.

    Raises:
        InputError: a setting is out of its range, or two contradict each other.
    """

    name: Annotated[str, Subject("Name of the concept in the library.")]
    class_word: Annotated[str, Subject("What the subject is, in a word that the base knows: dog.", flag="--class")]
    base: Annotated[str, Subject("toybox, a diffusers folder, a .safetensors file or a hub id.")] = "toybox"
    prediction_type: Annotated[
        PredictionType, Subject("What the base predicts. Default: as its files say, else the model is asked.")
    ] = OPEN
    trigger: Annotated[str, Subject("Stands for the subject in prompts. Default: <NAME>.")] = OPEN
    vectors: Annotated[int, Subject("Token embeddings of the trigger.")] = OPEN
    mode: Annotated[Mode, Subject("additive shifts singular vectors, rotational turns them.")] = "additive"
    rank: Annotated[int, Subject("Singular directions of each layer that the concept owns.")] = OPEN
    band: Annotated[
        int | Literal["auto"], Subject("A number, or auto: the next that is free in the library, see --band-side.")
    ] = "auto"
    band_side: Annotated[
        BandSide, Subject("Bands count from the top, the largest singular values, or from the bottom, the smallest.")
    ] = OPEN
    with_concepts: Annotated[
        tuple[str, ...],
        Subject("Concepts of the library to stay apart from in one picture: names, all of this base, or none."),
    ] = ("all",)
    train_s: Annotated[bool, Subject("Train the singular values of the band too.")] = False
    target: Annotated[tuple[str, ...], Subject("Endings of the names of the layers to adapt.")] = OPEN

    preset: Annotated[
        Preset,
        Learning(
            "How much time to take, where --steps does not say: careful takes twice the steps.", shapes_result=False
        ),
    ] = "balanced"
    steps: Annotated[int, Learning("Optimizer steps.")] = OPEN
    batch_size: Annotated[int, Learning("Pictures a step, over all processes and accumulated parts.")] = OPEN
    gradient_accumulation: Annotated[
        int, Learning("Parts that a process splits its share of the batch into: less memory.", shapes_result=False)
    ] = 1
    learning_rate_embedding: Annotated[float, Learning("For the token embeddings; 0: frozen.")] = OPEN
    learning_rate_text_encoder: Annotated[float, Learning("For the text encoder; 0: no adapter.")] = OPEN
    learning_rate_unet: Annotated[float, Learning("For the UNet; 0: no adapter.")] = OPEN
    schedule: Annotated[Schedule, Learning("Learning rate over the steps, as diffusers names it.")] = "linear"
    warmup_steps: Annotated[int, Learning("Steps in which the learning rate rises from 0.")] = 0
    optimizer: Annotated[Optimizer, Learning("adamw8bit needs bitsandbytes, prodigy needs prodigyopt.")] = "adamw"
    weight_decay: Annotated[float, Learning("Decoupled weight decay.")] = 0.01
    max_grad_norm: Annotated[float, Learning("Gradients are scaled down to this norm; 0: never.")] = 1.0
    seed: Annotated[int, Learning("Seed of everything random.")] = 0

    min_snr_gamma: Annotated[
        float, Loss("Min-SNR weighting of timesteps; 0: none. Default: 5, and none for v-prediction.")
    ] = OPEN
    noise_offset: Annotated[float, Loss("Standard deviation of the noise's own mean.")] = OPEN
    masked_loss: Annotated[bool, Loss("Learn only what the masks show, where there are masks.")] = OPEN
    class_images: Annotated[str | None, Loss("Folder of pictures of the class, for prior preservation.")] = None
    num_class_images: Annotated[int, Loss("Class pictures wanted; missing ones are generated.")] = 0
    prior_weight: Annotated[float, Loss("Weight of the class pictures' loss.")] = 1.0
    distillation_prompts: Annotated[
        int, Loss("Prompts without the subject on which the base's own predictions are preserved; 0: none.")
    ] = OPEN
    distillation_weight: Annotated[float, Loss("Weight of preserving them.")] = OPEN

    resolution: Annotated[int, Pictures("Size to train at, in px. Default: the base's own.")] = OPEN
    aspect_buckets: Annotated[bool, Pictures("Keep the aspect ratio instead of a square crop.")] = True
    random_crop: Annotated[bool, Pictures("Crop at random instead of in the centre.")] = False
    flip: Annotated[bool, Pictures("Mirror half of the pictures.")] = False
    background: Annotated[str, Pictures("Colour that transparency is flattened on.")] = "white"
    caption_dropout: Annotated[float, Pictures("Share of captions left empty.")] = OPEN
    shuffle_captions: Annotated[bool, Pictures("Shuffle the comma-separated parts of captions.")] = False
    keep_tags: Annotated[int, Pictures("First parts of a caption that shuffling leaves in place.")] = 1

    precision: Annotated[
        Precision,
        Speed("Default: what accelerate is set to, else bf16 on a GPU and fp32 on a CPU.", shapes_result=True),
    ] = OPEN
    gradient_checkpointing: Annotated[bool, Speed("Less memory for more time.")] = False
    cache_latents: Annotated[bool, Speed("Encode each picture once. Default: unless crops are random.")] = OPEN
    cache_text: Annotated[bool, Speed("Encode each caption once. Default: where only the UNet learns.")] = OPEN

    checkpoint_every: Annotated[int, Watching("Steps between checkpoints to resume from.")] = OPEN
    sample_every: Annotated[int, Watching("Steps between sample grids; 0: none.")] = 0
    sample_prompts: Annotated[tuple[str, ...], Watching("Prompts of the grids, <TOK> for the trigger.")] = ()
    validate_every: Annotated[
        int, Watching("Steps between measurements of the loss on fixed noise and timesteps; 0: none.")
    ] = 0

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()
        self._check_together()

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in (*choices, OPEN):
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; use one of {', '.join(choices)}")
        for name in ("name", "class_word"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} is empty; give {'--name rex' if name == 'name' else '--class dog'}")
        if self.band != "auto" and (type(self.band) is not int or self.band < 0):
            raise InputError(f"band {self.band!r} does not exist; give auto or a whole number from 0 up")
        if self.target is not OPEN and not self.target:
            raise InputError("target names no layers; give --target to_q to_k to_v to_out.0")

    def _check_ranges(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            whole = isinstance(low, int)
            fits = value is OPEN or (
                math.isfinite(value) and low <= value <= high and (isinstance(value, int) or not whole)
            )
            if not fits:
                most = "" if math.isinf(high) else f" to {high}"
                raise InputError(f"{name} is {value}; give a {'whole ' if whole else ''}number from {low}{most}")

    def _check_together(self) -> None:
        if self.random_crop and self.cache_latents:
            raise InputError("random_crop changes what would be cached; leave out one of random_crop and cache_latents")
        if self.cache_text and (self.learning_rate_embedding != 0 or self.learning_rate_text_encoder != 0):
            raise InputError("cache_text needs a text encoder that stays as it is; set both of its learning rates to 0")
        if self.learning_rate_unet == 0 and self.learning_rate_text_encoder == 0:
            raise InputError("a concept needs an adapter; raise the learning rate of the UNet or of the text encoder")
        asked = {getattr(self, name) for name in LEARNING_RATES} - {OPEN, 0}
        if self.optimizer == "prodigy" and len(asked) > 1:
            raise InputError("prodigy finds one step size for all; leave the learning rates out, or give one value")
        if self.warmup_steps and self.schedule == "constant":
            raise InputError("the schedule constant has no warm-up; use constant_with_warmup or leave out warmup_steps")

    @property
    def prior_preservation(self) -> bool:
        return self.class_images is not None or self.num_class_images > 0

    def learning_rate_of(self, part: str) -> float:
        """The learning rate of a part of a base, or of the token embeddings (`embedding`)."""
        if part == "embedding":
            return self.learning_rate_embedding
        return self.learning_rate_text_encoder if part.startswith("text_encoder") else self.learning_rate_unet

    def resolved(self, defaults: Mapping[str, Any], precision: Precision) -> "TrainConfig":
        """The same settings with all that was left open filled in.

        Args:
            defaults: the base's own, as `Base.presets` gives them.
            precision: what the device is best at.
        """
        filled_in = dict(defaults) | {
            "trigger": f"<{self.name}>",
            "precision": precision,
            "cache_latents": not self.random_crop,
        }
        if self.optimizer == "prodigy":  # its rates are factors of the step size that it finds
            filled_in |= dict.fromkeys(LEARNING_RATES, 1.0)
        filled = replace(self, **{name: value for name, value in filled_in.items() if getattr(self, name) is None})
        text_is_frozen = filled.learning_rate_embedding == 0 and filled.learning_rate_text_encoder == 0
        return replace(filled, cache_text=text_is_frozen) if filled.cache_text is None else filled

    def result_settings(self) -> dict[str, Any]:
        """The settings that the trained concept depends on, as JSON values: what its file keeps.

        Of an absolute path only the last part, so that local paths are not published.
        """
        kept = {name for name, item in settings().items() if item.shapes_result}
        values: dict[str, Any] = {
            name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if name in kept
        }
        for name in ("base", "class_images"):
            if values[name] is not None and Path(values[name]).is_absolute():
                values[name] = Path(values[name]).name
        return values


def settings() -> dict[str, Setting]:
    """The description of each field of `TrainConfig`, in order."""
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(TrainConfig, include_extras=True).items()}


RENAMED = {
    "beside": "with_concepts",
    "band_order": "band_side",
    "rehearsal_prompts": "distillation_prompts",
    "rehearsal_weight": "distillation_weight",
}
"""Settings under the names that files of format 1 give them."""

CHOICES = {
    "mode": get_args(Mode),
    "band_side": get_args(BandSide),
    "preset": get_args(Preset),
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "precision": get_args(Precision),
    "prediction_type": get_args(PredictionType),
}
RANGES: dict[str, tuple[float, float]] = {  # from a whole number: whole numbers only
    "vectors": (1, 64),
    "rank": (1, math.inf),
    "steps": (1, math.inf),
    "batch_size": (1, math.inf),
    "gradient_accumulation": (1, math.inf),
    "learning_rate_embedding": (0.0, 10),
    "learning_rate_text_encoder": (0.0, 10),
    "learning_rate_unet": (0.0, 10),
    "warmup_steps": (0, math.inf),
    "weight_decay": (0.0, 1),
    "max_grad_norm": (0.0, math.inf),
    "seed": (0, 2**63 - 1),
    "min_snr_gamma": (0.0, math.inf),
    "noise_offset": (0.0, 1),
    "num_class_images": (0, math.inf),
    "prior_weight": (0.0, math.inf),
    "distillation_prompts": (0, math.inf),
    "distillation_weight": (0.0, math.inf),
    "resolution": (16, 4096),
    "caption_dropout": (0.0, 1),
    "keep_tags": (0, math.inf),
    "checkpoint_every": (1, math.inf),
    "sample_every": (0, math.inf),
    "validate_every": (0, math.inf),
}
