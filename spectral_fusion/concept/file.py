"""A concept in memory and on disk: one safetensors file with tensors, token embeddings and metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spectral_fusion.concept.atomic import write_safetensors
from spectral_fusion.concept.metadata import OURS, ConceptInfo, from_metadata, to_metadata
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors, Triplets, additive_factors, rotational_factors

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

FILE_NAME = "concept.safetensors"
EMBEDDINGS = "embeddings"
BASIS = ("U", "S", "V")
TRAINED = {"additive": ("A", "B"), "rotational": ("X_U", "X_V")}
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
HALF_ERROR = 1e-3  # rounding a well-scaled tensor to float16 costs 3e-4 of its norm; tiny or huge values cost more


@dataclass(frozen=True, eq=False)
class LayerTensors:
    """One adapted layer, its weight seen as a matrix: the frozen band, and what was trained. All float32.

    basis: U (out, r), S (r,), V (in, r).
    trained: A (out, r), B (in, r) of an additive concept; X_U, X_V (r, r) of a rotational one; optionally c (r,).
    """

    basis: Triplets
    trained: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """All of them, by the names of the formulas: U, S, V, A, B or X_U, X_V, and c where it was trained."""
        return self.basis._asdict() | self.trained


@dataclass(frozen=True, eq=False, kw_only=True)
class Concept(ConceptInfo):
    """One subject, trained: what a concept file holds."""

    layers: dict[str, LayerTensors] = field(repr=False)
    """`unet.<module path>` or `text_encoder.<module path>` -> tensors."""
    embeddings: Tensor = field(repr=False)
    """(n, width): the vectors of the trigger's n tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers.keys() != self.fingerprints.keys():
            odd = sorted(self.layers.keys() ^ self.fingerprints.keys())
            raise InputError(f"layers and fingerprints of concept {self.name!r} differ, first in {odd[0]!r}")
        for name, layer in self.layers.items():
            _check_layer(name, layer, self)
        if self.embeddings.ndim != 2 or len(self.embeddings) == 0:
            shape = tuple(self.embeddings.shape)
            raise InputError(f"embeddings of concept {self.name!r} have shape {shape}; it must be (n, width)")
        _check_finite(EMBEDDINGS, self.embeddings)

    @property
    def info(self) -> ConceptInfo:
        """The metadata alone, without tensors."""
        return ConceptInfo(**{f.name: getattr(self, f.name) for f in fields(ConceptInfo)})

    @property
    def factor_rank(self) -> int:
        """Rank of `factors`, the same in every layer: 2r additive, r rotational."""
        return self.band.rank * (2 if self.mode == "additive" else 1)

    def factors(self, layer: str) -> Factors:
        """The concept's delta of one layer at weight one, alpha included: rank 2r additive, r rotational."""
        formula = additive_factors if self.mode == "additive" else rotational_factors
        up, down = formula(**self.layers[layer].tensors())
        return Factors(up * self.alpha, down)

    def save(self, path: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
        """Write the concept, all of it or nothing.

        Args:
            dtype: float16 halves the file. The delta is one of sums in which nothing cancels, so rounding the basis
                costs 1e-3 of the delta, and a tensor that float16 would hurt more (tiny values) stays in float32.
        """
        if dtype not in (torch.float16, torch.float32):
            raise InputError(f"a concept file holds float16 or float32, got {dtype}; give one of these")
        tensors = {EMBEDDINGS: self.embeddings.float()}
        for name, layer in self.layers.items():
            tensors |= {f"{name}.{part}": tensor.detach().float() for part, tensor in layer.tensors().items()}
        if dtype == torch.float16:
            tensors = {key: _halved(tensor) for key, tensor in tensors.items()}
        write_safetensors(Path(path), tensors, to_metadata(self))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Concept:
        """Read a concept file, or the one in a concept's folder. Nothing is unpickled or decomposed.

        Raises:
            InputError: the file is missing, broken, of another kind or version, or its tensors do not fit together.
        """
        path = find_file(path)
        info = read_info(path)
        tensors = _read_tensors(path)
        for key, tensor in tensors.items():
            if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
                raise InputError(f"{path}: tensor {key!r} is {tensor.dtype}; concepts hold floats. Save it again")
        tensors = {key: tensor.float() for key, tensor in tensors.items()}
        try:
            embeddings = tensors.pop(EMBEDDINGS)
            layers = {name: _collect_layer(name, tensors, info) for name in info.fingerprints}
        except KeyError as error:
            raise InputError(f"{path} lacks the tensor {error.args[0]!r}; train or save the concept again") from error
        if tensors:
            raise InputError(f"{path} holds {next(iter(tensors))!r}, which belongs to no layer; save the concept again")
        known = {f.name: getattr(info, f.name) for f in fields(ConceptInfo)}
        try:
            return cls(**known, layers=layers, embeddings=embeddings)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def from_pipeline(cls, pipeline: StableDiffusionPipeline, adapter_name: str, **settings: Any) -> Concept:
        """Collect a trained concept; see `attach.collect`."""
        from spectral_fusion.concept.attach import collect

        return collect(pipeline, adapter_name, **settings)

    def attach(self, pipeline: StableDiffusionPipeline, weight: float = 1.0) -> None:
        """Put the concept on a pipeline as an adapter of its name; see `attach.attach`."""
        from spectral_fusion.concept.attach import attach

        attach(self, pipeline, weight)

    def detach(self, pipeline: StableDiffusionPipeline) -> None:
        """Take the concept off again; see `attach.detach`."""
        from spectral_fusion.concept.attach import detach

        detach(self, pipeline)


def read_info(path: str | Path) -> ConceptInfo:
    """The metadata of a concept file, without reading its tensors.

    Raises:
        InputError: the file is missing, broken, or not a concept (the message says what it is).
    """
    path = find_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata, keys = file.metadata() or {}, list(file.keys())
    except SafetensorError as error:
        raise _broken(path, error) from error
    if OURS + "format_version" not in metadata:
        raise InputError(f"{path} is {_kind(keys)}, not a concept; concepts carry spectral_fusion.* metadata")
    return from_metadata(metadata, str(path))


def rewrite(source: str | Path, target: str | Path, info: ConceptInfo) -> None:
    """Copy a concept file with other metadata, its tensors bit for bit; source and target may be the same file."""
    write_safetensors(Path(target), _read_tensors(find_file(source)), to_metadata(info))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise _broken(path, error) from error


def find_file(path: str | Path) -> Path:
    """A concept file, or the one in a concept's folder.

    Raises:
        InputError: there is none, or it is a pickle.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise InputError(f"no concept file at {path}; give a .safetensors file or the folder of a concept")
    with path.open("rb") as file:
        start = file.read(2)
    if path.suffix in PICKLES or start in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise InputError(f"{path} is a pickle, which can run any program when opened; get the .safetensors file")
    return path


def _broken(path: Path, error: SafetensorError) -> InputError:
    reason = str(error).splitlines()[0]
    return InputError(f"{path} ({path.stat().st_size} bytes) is empty, cut off or no safetensors file: {reason}")


def _kind(keys: list[str]) -> str:
    """What a safetensors file without our metadata is, from the names of its tensors."""
    if any("lora_" in key or ".lora." in key for key in keys):
        return "a LoRA (load it with load_lora_weights)"
    if any(key.startswith(("model.diffusion_model.", "down_blocks.", "first_stage_model.")) for key in keys):
        return "a base model (give it as --base)"
    if len(keys) == 1 or "emb_params" in keys:
        return "a textual-inversion embedding (load it with load_textual_inversion)"
    return "some other safetensors file"


def _collect_layer(name: str, tensors: dict[str, Tensor], info: ConceptInfo) -> LayerTensors:
    basis = Triplets(*(tensors.pop(f"{name}.{part}") for part in BASIS))
    trained = {part: tensors.pop(f"{name}.{part}") for part in TRAINED[info.mode]}
    if f"{name}.c" in tensors:
        trained["c"] = tensors.pop(f"{name}.c")
    return LayerTensors(basis, trained)


def _check_layer(name: str, layer: LayerTensors, info: ConceptInfo) -> None:
    r, rows, columns = info.band.rank, len(layer.basis.U), len(layer.basis.V)
    shapes = {"U": (rows, r), "S": (r,), "V": (columns, r), "A": (rows, r), "B": (columns, r)}
    shapes |= {"X_U": (r, r), "X_V": (r, r), "c": (r,)}
    for part, tensor in layer.tensors().items():
        if tuple(tensor.shape) != shapes[part]:
            raise InputError(f"{part} of {name!r} has shape {tuple(tensor.shape)}, rank {r} needs {shapes[part]}")
        _check_finite(f"{name}.{part}", tensor)
    if info.band.hi > min(rows, columns):
        raise InputError(
            f"band {info.band.index} at rank {r} needs {info.band.hi} directions; {name!r} has {min(rows, columns)}"
        )


def _check_finite(name: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise InputError(f"tensor {name!r} holds NaN or infinity; train the concept again at a lower learning rate")


def _halved(tensor: Tensor) -> Tensor:
    half = tensor.half()
    error = torch.linalg.vector_norm(half.float() - tensor)
    return half if error <= HALF_ERROR * torch.linalg.vector_norm(tensor) else tensor
