"""LoRA files from elsewhere, read for a base: the deltas of its layers as `Factors`, as a concept has them.

Keys of diffusers (old and new), kohya's sd-scripts, LyCORIS, PEFT and `lora_diffusion` are read; see `lora_names`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from spectral_fusion.concept.checks import MAX_VECTORS
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.joint import Overlap
from spectral_fusion.concept.lora_names import NUMBERED, NUMBERED_TARGETS, LayerNames, split_key
from spectral_fusion.concept.lora_tensors import measure, refuse_foreign, to_factors
from spectral_fusion.concept.read import find_file, read_tensors
from spectral_fusion.errors import InputError, shown
from spectral_fusion.reading import open_tensors, parse_json, read_text
from spectral_fusion.spectral import Factors, delta_overlap

PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
DIFFUSERS_CONFIG = "lora_adapter_metadata"
TOKEN = re.compile(r"<[\w-]{1,60}>")
SHOWN = 3  # keys that an error lists


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A LoRA for one base, compared by identity.

    Attributes:
        layers: `unet.<module path>` or `text_encoder.<module path>` -> its delta at weight one, alpha included.
        trigger: the words that its metadata name, empty where they name none.
        embeddings: token -> (n, width), of the tokens that came in the file.
        unmatched: keys of the file that stand for no layer of the base, sorted.
    """

    name: str
    layers: dict[str, Factors] = field(repr=False)
    trigger: str = ""
    embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)
    unmatched: tuple[str, ...] = ()

    def factors(self, layer: str) -> Factors:
        """The delta of one layer at weight one."""
        return self.layers[layer]

    @property
    def words(self) -> dict[str, dict[str, Tensor]]:
        """Token -> text encoder -> vectors, as a concept has its trigger's."""
        return {token: {"text_encoder": rows} for token, rows in self.embeddings.items()}

    @property
    def rank(self) -> int:
        """The largest rank of a layer."""
        return max(len(factors.down) for factors in self.layers.values())


def is_lora(path: str | Path) -> bool:
    """Whether this is a LoRA rather than a concept: by its keys, without reading tensors; False where unreadable."""
    try:
        with open_tensors(_lora_path(path)) as file:
            ours = any(key.startswith("spectral_fusion.format") for key in file.metadata)
            return not ours and any(split_key(key) for key in file.shapes)
    except (OSError, InputError):
        return False


def read_lora(path: str | Path, layers: Mapping[str, tuple[int, ...]]) -> LoraFile:
    """Read a LoRA file, or the one in a folder that diffusers or PEFT wrote.

    Args:
        layers: the base's linear and convolution layers by name, with the shapes of their weights.

    Raises:
        InputError: no such file, a pickle, keys in no known format, a method that is no low-rank update, a layer of
            another shape or without one of its halves, or a value that is not finite.
    """
    path = _lora_path(path)
    with_metadata = read_tensors(path)
    metadata = _metadata(path)
    embeddings = {key: _rows(key, with_metadata.pop(key), path) for key in list(with_metadata) if TOKEN.fullmatch(key)}
    groups, strange = _group(with_metadata)
    if not groups:
        raise InputError(f"{path} has no keys of a LoRA ({_some(strange)}); give a LoRA of diffusers, kohya or PEFT")
    _check_numbered(path, groups, metadata)
    names, scales = LayerNames(layers), _Scales(_config(path, metadata), path)
    found: dict[str, Factors] = {}
    unmatched = set(strange)
    for name, tensors in groups.items():
        layer = names.find(name)
        if layer is None:
            unmatched |= {f"{name}: {what}" for what in tensors}
        elif layer in found:
            raise InputError(f"{path} has two deltas for {layer!r}; merge them, or train it again")
        else:
            found[layer] = _fit(path, layer, layers[layer], tensors, scales.of(layer, tensors))
    if not found:
        raise InputError(f"no key of {path} fits a layer of this base ({_some(groups)}); load the base it was made for")
    trigger = metadata.get("modelspec.trigger_phrase", "") or " ".join(embeddings)
    return LoraFile(_name(path), dict(sorted(found.items())), trigger, embeddings, tuple(sorted(unmatched)))


def lora_overlaps(lora: LoraFile, concepts: Sequence[Concept]) -> list[Overlap]:
    """How much a LoRA has in common with each concept, in the layer where it is most.

    A LoRA has no band: the value is the absolute cosine of the two deltas, `spectral.delta_overlap`. Concepts without a
    common layer are left out.
    """
    found = []
    for concept in concepts:
        both = [name for name in lora.layers if name in concept.layers]
        values = {name: delta_overlap(lora.factors(name), concept.factors(name)) for name in both}
        if values:
            worst = max(values, key=values.__getitem__)
            found.append(Overlap(lora.name, concept.name, worst, values[worst]))
    return found


def _lora_path(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in (DIFFUSERS_FILE, PEFT_FILE) if (path / name).is_file()), path / PEFT_FILE)
    return find_file(path)


def _metadata(path: Path) -> dict[str, str]:
    with open_tensors(path) as file:
        return dict(file.metadata)


def _group(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """[name of the layer in the file][what it is] -> tensor; and the keys in no known format."""
    groups: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in tensors.items():
        if split := split_key(key):
            groups.setdefault(split[0], {})[split[1]] = tensor
        else:
            strange.append(key)
    return groups, strange


def _fit(path: Path, layer: str, shape: tuple[int, ...], tensors: Mapping[str, Tensor], scale: float) -> Factors:
    try:
        refuse_foreign(tensors)
        needed, got = (shape[0], math.prod(shape[1:])), measure(tensors)
        if needed == got:
            return to_factors(tensors, scale)
    except InputError as error:
        raise InputError(f"{path}: {layer!r} holds {error}") from error
    raise InputError(
        f"{path} changes {layer!r} of shape {got[0]} x {got[1]}, this base has {needed[0]} x {needed[1]}; "
        "load the base it was made for"
    )


class _Scales:
    """What PEFT's settings, beside the file or in its header, multiply each delta by; 1 where there are none."""

    def __init__(self, config: Mapping[str, Any], path: Path) -> None:
        self.config = config
        for key, value in config.items():
            if key.endswith("peft_type") and value not in ("LORA", None):
                raise InputError(f"{path} is PEFT's {value}; only LoRA is read in its format. Merge it elsewhere")
            if key.endswith("use_dora") and value:
                raise InputError(f"{path} is a DoRA, which rescales whole weights; merge it elsewhere")

    def of(self, layer: str, tensors: Mapping[str, Tensor]) -> float:
        part, _, path = layer.partition(".")
        own = f"{part}." if f"{part}.lora_alpha" in self.config else ""
        alpha = self.config.get(f"{own}lora_alpha")
        for pattern, value in (self.config.get(f"{own}alpha_pattern") or {}).items():
            if path == pattern or path.endswith(f".{pattern}") or _matches(pattern, path):
                alpha = value
        if alpha is None or "down" not in tensors:
            return 1.0
        rank = len(tensors["down"])
        return float(alpha) / (math.sqrt(rank) if self.config.get(f"{own}use_rslora") else rank)


def _config(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """PEFT's settings: what diffusers puts into the header, or PEFT into a file next to it."""
    text, source = metadata.get(DIFFUSERS_CONFIG), f"{path}'s {DIFFUSERS_CONFIG}"
    config = path.with_name(PEFT_CONFIG)
    if text is None and path.name == PEFT_FILE and config.is_file():
        text, source = read_text(config), str(config)
    try:
        settings = parse_json(text, source) if text else {}
        for key, value in settings.items():
            if key.endswith("alpha_pattern"):
                for pattern, alpha in (value or {}).items():
                    _check_pattern(pattern, alpha)
            elif key.endswith("lora_alpha") and not math.isfinite(float(value)):
                raise ValueError(f"{key} is {value}")
    except (ValueError, TypeError, AttributeError, re.error) as error:  # bad JSON is an InputError, a ValueError too
        raise InputError(f"{source} cannot be read ({error}); get the LoRA again") from error
    return settings


def _check_pattern(pattern: str, alpha: Any) -> None:
    """Raises ValueError: not what PEFT takes, or an expression that may take for ever to match."""
    re.compile(pattern)
    if not math.isfinite(float(alpha)):
        raise ValueError(f"the alpha of {pattern!r} is {alpha}")
    plain = re.sub(r"\\.", "", pattern)
    if len(pattern) > 200 or len(re.findall(r"[*+{]", plain)) > 2 or re.search(r"\)[*+{]", plain):
        raise ValueError(f"the pattern {shown(pattern)} repeats too much")


def _matches(pattern: str, path: str) -> bool:
    """Whether PEFT means this layer, where the pattern is more than a name."""
    return re.fullmatch(r"[\w.]+", pattern) is None and re.fullmatch(rf"(.*\.)?({pattern})", path) is not None


def _check_numbered(path: Path, groups: Mapping[str, object], metadata: Mapping[str, str]) -> None:
    """Layers that a file numbers are told by their order, which holds for the usual kinds of layers alone."""
    for part in {match[1] for name in groups if (match := NUMBERED.fullmatch(name))}:
        targets = metadata.get(part)
        if targets is not None and set(re.findall(r"\w+", targets)) != NUMBERED_TARGETS[part]:
            raise InputError(f"{path} numbers unusual layers of {part}, {targets}; convert it to the keys of diffusers")


def _rows(token: str, tensor: Tensor, path: Path) -> Tensor:
    rows = tensor.float().reshape(-1, tensor.shape[-1]) if tensor.numel() and tensor.ndim else tensor.float()
    fits = tensor.is_floating_point() and rows.ndim == 2 and 1 <= len(rows) <= MAX_VECTORS and rows.shape[1]
    if not fits or not rows.isfinite().all():
        raise InputError(
            f"{path}: the vectors of {token} are no finite rows, at most {MAX_VECTORS}; get the LoRA again"
        )
    return rows


def _name(path: Path) -> str:
    """What the file is called, in letters that a concept's name may have."""
    stem = path.parent.name if path.name in (PEFT_FILE, DIFFUSERS_FILE) else path.stem
    return re.sub(r"[^\w-]+", "_", stem).strip("_-")[:64] or "lora"


def _some(keys: Any) -> str:
    keys = list(keys)
    return "first keys: " + ", ".join(keys[:SHOWN]) if keys else "it is empty"
