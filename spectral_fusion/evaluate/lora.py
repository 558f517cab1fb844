"""LoRA for comparison: trained by the same loop on the same pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from spectral_fusion.atomic import atomic_file
from spectral_fusion.base.attach import adapter_name
from spectral_fusion.base.interface import Base, Embeddings
from spectral_fusion.concept import ConceptInfo
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.errors import InputError
from spectral_fusion.reading import open_tensors, parse_json
from spectral_fusion.spectral import Band, Factors, as_matrix
from spectral_fusion.training.config import RENAMED, ResolvedConfig, TrainConfig, settings
from spectral_fusion.training.context import settings_with
from spectral_fusion.training.folder import digests, training_facts
from spectral_fusion.training.loop import Loop, Progress
from spectral_fusion.training.single import TrainingContext, subject_pictures, train_adapter

logger = logging.getLogger(__name__)

EMBEDDINGS = "embeddings"
FACTS = "spectral_fusion.comparison"
PREFIX = "text_model."  # in published files the text encoder's paths have it; transformers dropped it in version 5


@dataclass(frozen=True, eq=False)
class Lora:
    """One subject as a stock LoRA of scaling 1, and its tokens.

    layers: `unet.<module path>` or `text_encoder.<module path>` -> the A (r, in …) and B (out, r …) of PEFT.
    facts: what its training depended on; weight: what its delta is multiplied by.
    """

    name: str
    trigger: str
    class_word: str
    layers: dict[str, tuple[Tensor, Tensor]]
    embeddings: Embeddings
    facts: dict[str, Any]
    weight: float = 1.0

    @property
    def parameters(self) -> int:
        """Trainable numbers, token embeddings included."""
        return sum(A.numel() + B.numel() for A, B in self.layers.values()) + sum(
            rows.numel() for rows in self.embeddings.values()
        )

    def factors(self, layer: str) -> Factors:
        """The delta of one layer."""
        A, B = self.layers[layer]
        return Factors(as_matrix(B) * self.weight, as_matrix(A))

    @property
    def words(self) -> dict[str, Embeddings]:
        """The words that it brings, as a concept does."""
        return {self.trigger: self.embeddings}

    def scaled(self, weight: float) -> Lora:
        """The same LoRA at another weight."""
        return self if weight == self.weight else replace(self, weight=weight)

    def save(self, path: Path) -> None:
        """Write a LoRA that diffusers loads, with the tokens' vectors and `facts` in it."""
        header = {"name": self.name, "trigger": self.trigger, "class_word": self.class_word, "facts": self.facts}
        rows = {f"{EMBEDDINGS}.{name}": tensor for name, tensor in self.embeddings.items()}
        with atomic_file(path) as part:
            save_file(self.state() | rows, part, {FACTS: json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> Lora:
        """The inverse of `save`. Raises InputError where the file is damaged, or none of these."""
        with open_tensors(path) as file:
            header, tensors = parse_json(file.metadata.get(FACTS, "null"), str(path)), file.read_all()
        if not isinstance(header, dict) or header.keys() != {"name", "trigger", "class_word", "facts"}:
            raise InputError(f"{path} is no LoRA to compare with; delete it, and it is trained again")
        prefix = f"{EMBEDDINGS}."
        embeddings = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
        names = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]
        if len(tensors) != 2 * len(names) or any(f"{name}.lora_B.weight" not in tensors for name in names):
            raise InputError(f"{path} lacks halves of its layers; delete it, and it is trained again")
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


def train_loras(
    concepts: Sequence[ConceptInfo],
    folders: Sequence[ImageFolder],
    root: Path,
    *,
    base: Base,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Lora]:
    """The same subjects as LoRAs, trained one after the other as `train_lora` does; kept in `root`.

    Where a concept was trained beside some that come before it here, its LoRA is trained beside theirs.
    """
    loras: list[Lora] = []
    for concept, folder in zip(concepts, folders, strict=True):
        on_progress(f"{concept.name}: training a LoRA to compare with")

        def tell(_: Loop, progress: Progress, name: str = concept.name) -> None:
            on_progress(f"{name}: training a LoRA, step {progress.step} of {progress.steps}")

        beside = [lora for lora in loras if lora.name in context_of(concept)]
        loras.append(train_lora(concept, folder, root, base=base, beside=beside, on_step=tell))
    return loras


def context_of(concept: ConceptInfo) -> Sequence[str]:
    """Names of the concepts that a concept was trained beside; files of format 1 called them neighbours."""
    training = concept.training
    return tuple(training.get("context", training.get("neighbours", ())))


def train_lora(
    concept: ConceptInfo,
    images: ImageFolder,
    root: Path,
    *,
    base: Base,
    beside: Sequence[Lora] = (),
    on_step: Callable[[Loop, Progress], None] | None = None,
) -> Lora:
    """Train a LoRA with the settings that a concept was trained with; only the adapter differs.

    Its rank is the concept's, so an additive concept has as many trainable numbers: r (out + in) a layer. It is kept in
    the folder `root`, and found there again where settings, pictures and the other LoRAs are the same.

    Args:
        beside: LoRAs that it is trained beside, kept in `root` too.

    Raises:
        InputError: the concept does not say how it was trained, or was trained with class pictures.
    """
    config, path = settings_with(base, training_config(concept, base), beside), _file(root, concept.name)
    facts = training_facts(config, images, digests({lora.name: _file(root, lora.name) for lora in beside}))
    if (kept := _kept(path)) is not None and kept.facts == facts:
        return kept
    lora = train_adapter(
        base,
        [subject_pictures(base, images, config)],
        config,
        Band(0, config.rank),
        TrainingContext(beside),
        lambda _: collect_lora(base, config, facts),
        adapter=lora_adapter,
        on_step=on_step,
    )
    lora.save(path)
    return lora


def _kept(path: Path) -> Lora | None:
    """The LoRA that was trained earlier; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return Lora.load(path)
    except InputError as error:
        logger.warning("%s; it is trained again", error)
        return None


def _file(root: Path, name: str) -> Path:
    return root / f"{name}.safetensors"


def training_config(concept: ConceptInfo, base: Base) -> ResolvedConfig:
    """The settings that a concept was trained with, in full.

    Raises:
        InputError: the concept does not say, or needs class pictures.
    """
    said = {RENAMED.get(name, name): value for name, value in concept.training.items()}
    known = {name: value for name, value in said.items() if name in settings()}
    if not known:
        raise InputError(f"concept {concept.name!r} does not say how it was trained; train it again to compare it")
    config = TrainConfig(**known)
    if config.prior_preservation:
        raise InputError(f"concept {concept.name!r} was trained with class pictures; LoRA can be compared without them")
    return config.resolved(base.presets(config.mode, config.preset), "fp32")


def lora_adapter(config: ResolvedConfig, band: Band, targets: list[str]) -> LoraConfig:
    """A stock LoRA of the band's rank and scaling 1."""
    return LoraConfig(r=band.rank, lora_alpha=band.rank, target_modules=targets)


def collect_lora(base: Base, config: ResolvedConfig, facts: dict[str, Any]) -> Lora:
    """The LoRA that was trained under the settings' name and trigger; its tensors are copies in float32 on the CPU."""
    adapter = adapter_name(config.name)
    layers = {
        f"{part}.{path}": (_copy(module.lora_A[adapter].weight), _copy(module.lora_B[adapter].weight))
        for part, model in base.parts.items()
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    rows = {part: _copy(text.embedding.weight[text.token_ids(config.trigger)]) for part, text in base.texts.items()}
    return Lora(config.name, config.trigger, config.class_word, layers, rows, facts)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().clone()
