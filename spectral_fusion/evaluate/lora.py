"""LoRA for comparison: trained by the same loop on the same pictures, loaded and switched on by diffusers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from spectral_fusion.atomic import atomic_file
from spectral_fusion.concept import ConceptInfo
from spectral_fusion.concept.attach import adapter_name
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.pipeline.load import quietly
from spectral_fusion.pipeline.tokens import add_tokens, remove_tokens, token_ids
from spectral_fusion.spectral import Band, Factors, as_matrix
from spectral_fusion.train.config import TrainConfig, settings
from spectral_fusion.train.job import subject_pictures
from spectral_fusion.train.loop import Loop
from spectral_fusion.train.neighbours import digests, lessons, settings_beside
from spectral_fusion.train.run import run_facts
from spectral_fusion.train.trainee import trainee

EMBEDDINGS = "embeddings"
FACTS = "spectral_fusion.comparison"
PREFIX = "text_model."  # in published files the text encoder's paths have it; transformers dropped it in version 5


@dataclass(frozen=True, eq=False)
class Lora:
    """One subject as a stock LoRA of scaling 1, and its tokens.

    layers: `unet.<module path>` or `text_encoder.<module path>` -> the A (r, in …) and B (out, r …) of PEFT.
    facts: what its training depended on.
    """

    name: str
    trigger: str
    class_word: str
    layers: dict[str, tuple[Tensor, Tensor]]
    embeddings: Tensor
    facts: dict[str, Any]

    @property
    def parameters(self) -> int:
        """Trainable numbers, token embeddings included."""
        return sum(A.numel() + B.numel() for A, B in self.layers.values()) + self.embeddings.numel()

    def factors(self, layer: str) -> Factors:
        """The delta of one layer."""
        A, B = self.layers[layer]
        return Factors(as_matrix(B), as_matrix(A))

    def attach(self, pipeline: StableDiffusionPipeline, weight: float = 1.0) -> None:
        """Load it, besides those that are loaded, and set its weight alone; `detach` is the inverse."""
        attach_all(pipeline, {self: weight})

    def detach(self, pipeline: StableDiffusionPipeline) -> None:
        """Unload it and every other LoRA, and forget its tokens."""
        detach_all(pipeline, [self])

    def save(self, path: Path) -> None:
        """Write a LoRA that diffusers loads, with the tokens' vectors and `facts` in it."""
        header = {"name": self.name, "trigger": self.trigger, "class_word": self.class_word, "facts": self.facts}
        with atomic_file(path) as part:
            save_file(self.state() | {EMBEDDINGS: self.embeddings}, part, {FACTS: json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> Lora:
        """The inverse of `save`."""
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[FACTS])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
        embeddings = tensors.pop(EMBEDDINGS)
        names = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]
        layers = {
            name.replace(PREFIX, "", 1): (tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"])
            for name in names
        }
        return cls(layers=layers, embeddings=embeddings, **header)

    def state(self) -> dict[str, Tensor]:
        """The tensors as `load_lora_weights` takes them."""
        prefixed = f"text_encoder.{PREFIX}"
        named = {name.replace("text_encoder.", prefixed, 1): matrices for name, matrices in self.layers.items()}
        return {
            f"{name}.lora_{letter}.weight": matrix.contiguous()
            for name, matrices in named.items()
            for letter, matrix in zip("AB", matrices, strict=True)
        }


def attach_all(pipeline: StableDiffusionPipeline, loras: dict[Lora, float]) -> None:
    """Load LoRAs and their tokens, and switch them on together."""
    for lora in loras:
        with quietly(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several are the point
            pipeline.load_lora_weights(lora.state(), adapter_name=adapter_name(lora.name))
        add_tokens(pipeline, lora.trigger, lora.embeddings)
    pipeline.set_adapters([adapter_name(lora.name) for lora in loras], list(loras.values()))


def detach_all(pipeline: StableDiffusionPipeline, loras: list[Lora]) -> None:
    """The inverse of `attach_all`."""
    pipeline.unload_lora_weights()
    for lora in loras:
        if token_ids(pipeline, lora.trigger):
            remove_tokens(pipeline, lora.trigger)


def train_loras(
    concepts: Sequence[ConceptInfo],
    folders: Sequence[ImageFolder],
    root: Path,
    *,
    pipeline: StableDiffusionPipeline,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Lora]:
    """The same subjects as LoRAs, trained one after the other as `train_lora` does; kept in `root`.

    Where a concept was trained beside some that come before it here, its LoRA is trained beside theirs.
    """
    loras: list[Lora] = []
    for concept, folder in zip(concepts, folders, strict=True):
        on_progress(f"{concept.name}: training a LoRA to compare with")
        beside = [lora for lora in loras if lora.name in concept.training.get("neighbours", ())]
        loras.append(train_lora(concept, folder, root, pipeline=pipeline, beside=beside))
    return loras


def train_lora(
    concept: ConceptInfo,
    images: ImageFolder,
    root: Path,
    *,
    pipeline: StableDiffusionPipeline,
    beside: Sequence[Lora] = (),
) -> Lora:
    """Train a LoRA with the settings that a concept was trained with; only the adapter differs.

    Its rank is the concept's, so an additive concept has as many trainable numbers: r (out + in) a layer. It is kept in
    the folder `root`, and found there again where settings, pictures and neighbours are the same.

    Args:
        beside: its neighbours, kept in `root` too.

    Raises:
        InputError: the concept does not say how it was trained, or was trained with class pictures.
    """
    config, path = settings_beside(training_config(concept, pipeline), beside), _file(root, concept.name)
    facts = run_facts(config, images, digests({lora.name: _file(root, lora.name) for lora in beside}))
    if path.is_file() and (kept := Lora.load(path)).facts == facts:
        return kept
    pictures = subject_pictures(pipeline, images, config)
    with (
        lessons(pipeline, config, beside) as taught,
        trainee(pipeline, config, Band(0, config.rank), adapter=lora_adapter) as learner,
    ):
        loop = Loop(learner, [pictures], config, taught)
        while loop.step < config.steps:
            loop.advance()
        lora = collect_lora(pipeline, config, facts)
    pipeline.unload_lora_weights()
    lora.save(path)
    return lora


def _file(root: Path, name: str) -> Path:
    return root / f"{name}.safetensors"


def training_config(concept: ConceptInfo, pipeline: StableDiffusionPipeline) -> TrainConfig:
    """The settings that a concept was trained with, in full.

    Raises:
        InputError: the concept does not say, or needs class pictures.
    """
    known = {name: value for name, value in concept.training.items() if name in settings()}
    if not known:
        raise InputError(f"concept {concept.name!r} does not say how it was trained; train it again to compare it")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    config = TrainConfig(**values)
    if config.prior_preservation:
        raise InputError(f"concept {concept.name!r} was trained with class pictures; LoRA can be compared without them")
    return config.resolved(
        resolution=pipeline.unet.config.sample_size * pipeline.vae_scale_factor,
        prediction_type=pipeline.scheduler.config.prediction_type,
        precision="fp32",
    )


def lora_adapter(config: TrainConfig, band: Band, targets: list[str]) -> LoraConfig:
    """A stock LoRA of the band's rank and scaling 1."""
    return LoraConfig(r=band.rank, lora_alpha=band.rank, target_modules=targets)


def collect_lora(pipeline: StableDiffusionPipeline, config: TrainConfig, facts: dict[str, Any]) -> Lora:
    """The LoRA that was trained under the settings' name and trigger; its tensors are copies in float32 on the CPU."""
    adapter = adapter_name(config.name)
    layers = {
        f"{component}.{path}": (_copy(module.lora_A[adapter].weight), _copy(module.lora_B[adapter].weight))
        for component in ("unet", "text_encoder")
        for path, module in getattr(pipeline, component).named_modules()
        if isinstance(module, LoraLayer)
    }
    rows = pipeline.text_encoder.get_input_embeddings().weight[token_ids(pipeline, config.trigger)]
    return Lora(config.name, config.trigger, config.class_word, layers, _copy(rows), facts)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone()
