"""A concept in memory and on disk: one safetensors file with tensors, token embeddings and metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from spectral_fusion.atomic import write_safetensors
from spectral_fusion.concept.checks import check_embeddings, check_layer, check_sizes
from spectral_fusion.concept.metadata import ConceptInfo, to_metadata
from spectral_fusion.concept.read import EMBEDDINGS, find_file, open_concept
from spectral_fusion.errors import InputError, shown
from spectral_fusion.spectral import Factors, Triplets, additive_factors, rotational_factors

TEXT_OF_FORMAT_1 = "text_encoder"  # whose embeddings had no name of their own
BASIS = ("U", "S", "V")
TRAINED = {"additive": ("A", "B"), "rotational": ("X_U", "X_V")}
FLOATS = ("F16", "BF16", "F32")  # as the format calls them
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
    embeddings: dict[str, Tensor] = field(repr=False)
    """Text part -> (n, width): the vectors of the trigger's n tokens, n being the same in all parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers.keys() != self.fingerprints.keys():
            odd = sorted(self.layers.keys() ^ self.fingerprints.keys())
            raise InputError(f"layers and fingerprints of concept {self.name!r} differ, first in {odd[0]!r}")
        for name, layer in self.layers.items():
            check_layer(name, layer.basis, layer.trained, TRAINED[self.mode], self)
        smallest = min(len(part) for layer in self.layers.values() for part in (layer.basis.U, layer.basis.V))
        if self.directions != smallest:
            raise InputError(f"concept {self.name!r} claims {self.directions} directions; its layers have {smallest}")
        check_embeddings(self.embeddings, self)

    @property
    def info(self) -> ConceptInfo:
        """The metadata alone, without tensors."""
        return ConceptInfo(**{f.name: getattr(self, f.name) for f in fields(ConceptInfo)})

    @property
    def words(self) -> dict[str, dict[str, Tensor]]:
        """Its trigger -> text encoder -> vectors: what a base needs to read prompts that name it."""
        return {self.trigger: self.embeddings}

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
        tensors = {f"{EMBEDDINGS}.{part}": rows.float() for part, rows in self.embeddings.items()}
        for name, layer in self.layers.items():
            tensors |= {f"{name}.{part}": tensor.detach().float() for part, tensor in layer.tensors().items()}
        if dtype == torch.float16:
            tensors = {key: _halved(tensor) for key, tensor in tensors.items()}
        widths = [rows.shape[1] for rows in self.embeddings.values()]
        write_safetensors(Path(path), tensors, to_metadata(self, widths))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Concept:
        """Read a concept file, or the one in a concept's folder. Nothing is unpickled or decomposed.

        Raises:
            InputError: the file is missing, broken, of another kind or version, or its tensors do not fit together.
        """
        path = find_file(path)
        with open_concept(path) as (info, file):
            for key, kind in file.types.items():
                if kind not in FLOATS:
                    raise InputError(
                        f"{path}: tensor {shown(key)} is {file.read(key).dtype}; concepts hold floats. Save it again"
                    )
            check_sizes(path, file.shapes)
            # Copies: a tensor of the file itself would change with it, and lies in memory however the header has it.
            tensors = {key: file.read(key).to(torch.float32, copy=True) for key in file.shapes}
        try:
            embeddings = _collect_embeddings(tensors, info)
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


def _collect_embeddings(tensors: dict[str, Tensor], info: ConceptInfo) -> dict[str, Tensor]:
    """Takes the embeddings of each text part out of a file's tensors; format 1 had one, without a name."""
    if EMBEDDINGS in tensors:
        return {TEXT_OF_FORMAT_1: tensors.pop(EMBEDDINGS)}
    return {part: tensors.pop(f"{EMBEDDINGS}.{part}") for part in info.text_parts}


def _collect_layer(name: str, tensors: dict[str, Tensor], info: ConceptInfo) -> LayerTensors:
    basis = Triplets(*(tensors.pop(f"{name}.{part}") for part in BASIS))
    trained = {part: tensors.pop(f"{name}.{part}") for part in TRAINED[info.mode]}
    if f"{name}.c" in tensors:
        trained["c"] = tensors.pop(f"{name}.c")
    return LayerTensors(basis, trained)


def _halved(tensor: Tensor) -> Tensor:
    half = tensor.half()
    error = torch.linalg.vector_norm(half.float() - tensor)
    return half if error <= HALF_ERROR * torch.linalg.vector_norm(tensor) else tensor
