"""Settings of one training. Each is documented once, here: the command line reads its help texts from the fields."""

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field
from pydantic.dataclasses import dataclass

from spectral_fusion.base.default import DEFAULT
from spectral_fusion.base.presets import LEARNING_RATES, Preset
from spectral_fusion.errors import InputError
from spectral_fusion.settings import (
    CHECKED,
    MANY,
    NonNegative,
    NonNegativeInt,
    PositiveInt,
    Seed,
    Share,
    Words,
    checked,
)

Mode = Literal["additive", "rotational"]
BandSide = Literal["top", "bottom"]
Optimizer = Literal["adamw", "adamw8bit", "prodigy"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
Precision = Literal["fp32", "fp16", "bf16"]
PredictionType = Literal["epsilon", "v_prediction"]

BandIndex = Annotated[int, Field(ge=0, le=MANY, strict=False)]  # also as text, as a flag gives it
Pixels = Annotated[int, Field(ge=16, le=4096)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, le=10)]
Vectors = Annotated[int, Field(ge=0, le=64)]
Rank = Annotated[int, Field(ge=1, le=16_384)]  # no concept file has a layer of more directions
Batch = Annotated[int, Field(ge=1, le=4096)]


@plain_dataclass(frozen=True)
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


@checked
@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainConfig:
    """Settings of one training as the user gives them; None leaves one to the base.

    Raises:
        InputError: a setting is not of its type or out of its range, or two contradict each other.
    """

    name: Annotated[str, Subject("Name of the concept in the library.")]
    class_word: Annotated[str, Subject("What the subject is, in a word that the base knows: dog.", flag="--class")]
    base: Annotated[
        str, Subject("toybox128, toybox, toybox-sd3, a diffusers folder, a .safetensors file or a hub id.")
    ] = DEFAULT
    prediction_type: Annotated[
        PredictionType | None, Subject("What the base predicts. Default: as its files say, else the model is asked.")
    ] = None
    trigger: Annotated[str | None, Subject("Stands for the subject in prompts. Default: <NAME>.")] = None
    vectors: Annotated[
        Vectors | None, Subject("Token embeddings of the trigger; 0 where text encoders are frozen.")
    ] = None
    mode: Annotated[Mode, Subject("additive shifts singular vectors, rotational turns them.")] = "additive"
    rank: Annotated[Rank | None, Subject("Singular directions of each layer that the concept owns.")] = None
    band: Annotated[
        BandIndex | Literal["auto"],
        Subject("A number, or auto: the next that is free in the library, see --band-side."),
    ] = "auto"
    band_side: Annotated[
        BandSide | None,
        Subject("Bands count from the top, the largest singular values, or from the bottom, the smallest."),
    ] = None
    with_concepts: Annotated[
        Words,
        Subject("Concepts of the library to stay apart from in one picture: names, all of this base, or none."),
    ] = ("all",)
    train_s: Annotated[bool, Subject("Train the singular values of the band too.")] = False
    target: Annotated[Words | None, Subject("Endings of the names of the layers to adapt.")] = None
    exclude_modules: Annotated[
        Words | None, Subject("Blocks whose layers stay as they are: down_blocks.0 leaves out its whole level.")
    ] = None

    preset: Annotated[
        Preset,
        Learning(
            "How much time to take, where --steps does not say: careful takes twice the steps.", shapes_result=False
        ),
    ] = "balanced"
    steps: Annotated[PositiveInt | None, Learning("Optimizer steps.")] = None
    batch_size: Annotated[Batch | None, Learning("Pictures a step, over all processes and accumulated parts.")] = None
    gradient_accumulation: Annotated[
        Batch,
        Learning("Parts that a process splits its share of the batch into: less memory.", shapes_result=False),
    ] = 1
    learning_rate_embedding: Annotated[Rate | None, Learning("For the token embeddings; 0: frozen.")] = None
    learning_rate_text_encoder: Annotated[Rate | None, Learning("For the text encoder; 0: no adapter.")] = None
    learning_rate_unet: Annotated[Rate | None, Learning("For the UNet; 0: no adapter.")] = None
    schedule: Annotated[Schedule, Learning("Learning rate over the steps, as diffusers names it.")] = "linear"
    warmup_steps: Annotated[NonNegativeInt, Learning("Steps in which the learning rate rises from 0.")] = 0
    optimizer: Annotated[Optimizer, Learning("adamw8bit needs bitsandbytes, prodigy needs prodigyopt.")] = "adamw"
    weight_decay: Annotated[Share, Learning("Decoupled weight decay.")] = 0.01
    max_grad_norm: Annotated[NonNegative, Learning("Gradients are scaled down to this norm; 0: never.")] = 1.0
    ema_decay: Annotated[
        Decay, Learning("Keep the moving average of what is trained, with this decay (0.99); 0: its last values.")
    ] = 0.0
    early_stopping_patience: Annotated[
        NonNegativeInt,
        Learning("Stop when so many measurements in a row bring no gain, see --validate-every; 0: train all steps."),
    ] = 0
    seed: Annotated[Seed, Learning("Seed of everything random.")] = 0

    min_snr_gamma: Annotated[
        NonNegative | None, Loss("Min-SNR weighting of timesteps; 0: none. Default: 5, and none for v-prediction.")
    ] = None
    noise_offset: Annotated[Share | None, Loss("Standard deviation of the noise's own mean.")] = None
    masked_loss: Annotated[bool | None, Loss("Learn only what the masks show, where there are masks.")] = None
    class_images: Annotated[str | None, Loss("Folder of pictures of the class, for prior preservation.")] = None
    num_class_images: Annotated[NonNegativeInt, Loss("Class pictures wanted; missing ones are generated.")] = 0
    prior_weight: Annotated[NonNegative, Loss("Weight of the class pictures' loss.")] = 1.0
    distillation_prompts: Annotated[
        NonNegativeInt | None,
        Loss("Prompts without the subject on which the base's own predictions are preserved; 0: none."),
    ] = None
    distillation_weight: Annotated[NonNegative | None, Loss("Weight of preserving them.")] = None

    resolution: Annotated[Pixels | None, Pictures("Size to train at, in px. Default: the base's own.")] = None
    aspect_buckets: Annotated[bool, Pictures("Keep the aspect ratio instead of a square crop.")] = True
    random_crop: Annotated[bool, Pictures("Crop at random instead of in the centre.")] = False
    flip: Annotated[bool, Pictures("Mirror half of the pictures.")] = False
    background: Annotated[str, Pictures("Colour that transparency is flattened on.")] = "white"
    caption_dropout: Annotated[Share | None, Pictures("Share of captions left empty.")] = None
    shuffle_captions: Annotated[bool, Pictures("Shuffle the comma-separated parts of captions.")] = False
    keep_tags: Annotated[NonNegativeInt, Pictures("First parts of a caption that shuffling leaves in place.")] = 1

    precision: Annotated[
        Precision | None,
        Speed("Default: what accelerate is set to, else bf16 where the GPU or CPU computes in it.", shapes_result=True),
    ] = None
    gradient_checkpointing: Annotated[bool, Speed("Less memory for more time.")] = False
    low_memory: Annotated[
        bool,
        Speed("Gradient checkpointing, a base in its files' own precision, and on the GPU only what trains."),
    ] = False
    offload_blocks: Annotated[
        bool, Speed("As low_memory, and of the denoiser the weights of one layer at a time on the GPU; slow.")
    ] = False
    quantize: Annotated[
        Literal["int8", "fp8", "nf4"] | None,
        Speed(
            "Hold the denoiser's linear layers in 8 or 4 bits: int8 and fp8 need torchao, nf4 bitsandbytes.",
            shapes_result=True,
        ),
    ] = None
    cache_latents: Annotated[bool | None, Speed("Encode each picture once. Default: unless crops are random.")] = None
    cache_text: Annotated[bool | None, Speed("Encode each caption once. Default: where only the UNet learns.")] = None

    checkpoint_every: Annotated[PositiveInt | None, Watching("Steps between checkpoints to resume from.")] = None
    sample_every: Annotated[NonNegativeInt, Watching("Steps between sample grids; 0: none.")] = 0
    sample_prompts: Annotated[Words, Watching("Prompts of the grids, <TOK> for the trigger.")] = ()
    validate_every: Annotated[
        NonNegativeInt, Watching("Steps between measurements of the loss on fixed noise and timesteps; 0: none.")
    ] = 0
    validation_images: Annotated[
        str | None, Watching("Folder of pictures to measure on. Default: the first of those that are learned.")
    ] = None

    def __post_init__(self) -> None:
        for name, advice in (("name", "--name rex"), ("class_word", "--class dog")):
            if not getattr(self, name).strip():
                raise InputError(f"{name} is empty; give {advice}")
        if self.target == ():
            raise InputError("target names no layers; give --target to_q to_k to_v to_out.0")
        self._check_together()

    def _check_together(self) -> None:
        if self.offload_blocks and self.quantize is not None:
            raise InputError("blocks that are quantised cannot come and go; give one of offload_blocks and quantize")
        if self.random_crop and self.cache_latents:
            raise InputError("random_crop changes what would be cached; leave out one of random_crop and cache_latents")
        if self.cache_text and (self.learning_rate_embedding != 0 or self.learning_rate_text_encoder != 0):
            raise InputError("cache_text needs a text encoder that stays as it is; set both of its learning rates to 0")
        if self.learning_rate_unet == 0 and self.learning_rate_text_encoder == 0:
            raise InputError("a concept needs an adapter; raise the learning rate of the UNet or of the text encoder")
        asked = {getattr(self, name) for name in LEARNING_RATES} - {None, 0}
        if self.optimizer == "prodigy" and len(asked) > 1:
            raise InputError("prodigy finds one step size for all; leave the learning rates out, or give one value")
        if self.early_stopping_patience and not self.validate_every:
            raise InputError(
                "early_stopping_patience counts measurements; say how often to measure: --validate-every 50"
            )
        if self.validation_images and not self.validate_every:
            raise InputError("validation_images are measured on; say how often to measure: --validate-every 50")
        if self.warmup_steps and self.schedule == "constant":
            raise InputError("the schedule constant has no warm-up; use constant_with_warmup or leave out warmup_steps")

    @property
    def prior_preservation(self) -> bool:
        return self.class_images is not None or self.num_class_images > 0

    def resolved(self, defaults: Mapping[str, Any], precision: Precision) -> "ResolvedConfig":
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
        values = asdict(self)
        values |= {name: value for name, value in filled_in.items() if values.get(name) is None}
        values["low_memory"] |= self.offload_blocks
        values["gradient_checkpointing"] |= values["low_memory"]
        if values["cache_text"] is None:
            values["cache_text"] = values["learning_rate_embedding"] == values["learning_rate_text_encoder"] == 0
        return ResolvedConfig(**values)

    def result_settings(self) -> dict[str, Any]:
        """The settings that the trained concept depends on, as JSON values: what its file keeps.

        Of an absolute path only the last part, so that local paths are not published.
        """
        kept = {name for name, item in settings().items() if item.shapes_result}
        # Without effect where they are 0, and so left out: files stay as they were before there were such settings.
        kept -= {name for name in ("ema_decay", "early_stopping_patience", "quantize") if not getattr(self, name)}
        if self.early_stopping_patience:
            kept |= {"validate_every", "validation_images"}
        values: dict[str, Any] = {
            name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if name in kept
        }
        for name in ("base", "class_images", "validation_images"):
            if values.get(name) is not None and Path(values[name]).is_absolute():
                values[name] = Path(values[name]).name
        return values


@checked
@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ResolvedConfig(TrainConfig):
    """Settings that a training runs with: those of `TrainConfig` with nothing left to the preset."""

    trigger: str
    vectors: Vectors
    rank: Rank
    band_side: BandSide
    target: Words
    exclude_modules: Words
    steps: PositiveInt
    batch_size: Batch
    learning_rate_embedding: Rate
    learning_rate_text_encoder: Rate
    learning_rate_unet: Rate
    min_snr_gamma: NonNegative
    noise_offset: Share
    masked_loss: bool
    distillation_prompts: NonNegativeInt
    distillation_weight: NonNegative
    resolution: Pixels
    caption_dropout: Share
    precision: Precision
    cache_latents: bool
    cache_text: bool
    checkpoint_every: PositiveInt

    def learns(self, part: str) -> bool:
        """Whether a part of a base is at work in every step: what trains, and text encoders whose words do."""
        words = part.startswith("text_encoder") and self.learning_rate_embedding > 0
        return words or not part.startswith("text_encoder") or self.learning_rate_of(part) > 0

    def learning_rate_of(self, part: str) -> float:
        """The learning rate of a part of a base, or of the token embeddings (`embedding`)."""
        if part == "embedding":
            return self.learning_rate_embedding
        return self.learning_rate_text_encoder if part.startswith("text_encoder") else self.learning_rate_unet


def settings() -> dict[str, Setting]:
    """The description of each field of `TrainConfig`, in order."""
    return {name: hint.__metadata__[-1] for name, hint in get_type_hints(TrainConfig, include_extras=True).items()}


RENAMED = {
    "beside": "with_concepts",
    "band_order": "band_side",
    "rehearsal_prompts": "distillation_prompts",
    "rehearsal_weight": "distillation_weight",
}
"""Settings under the names that files of format 1 give them."""
