"""What the tensors of a concept must be like: their number, shapes and values."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from spectral_fusion.concept.header import MAX_LAYERS
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.errors import InputError, shown
from spectral_fusion.spectral import Triplets

MAX_VECTORS = 1024  # of a trigger: more than any prompt has room for
MAX_SIDE = 2**17  # inputs or outputs of one layer
MAX_TENSORS = 8 * MAX_LAYERS


def check_sizes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError where a file's tensors are too many, empty or too large to be a concept's; none is read."""
    if len(shapes) > MAX_TENSORS:
        raise InputError(f"{path} holds {len(shapes)} tensors; a concept has at most {MAX_TENSORS}")
    for key, shape in shapes.items():
        if len(shape) > 2 or any(not 1 <= side <= MAX_SIDE for side in shape):
            raise InputError(
                f"{path}: tensor {shown(key)} has shape {shown(shape)}; those of a concept have one or two sides of 1 "
                f"to {MAX_SIDE}. Get the file again"
            )


def check_layer(
    name: str, basis: Triplets, trained: Mapping[str, Tensor], needed: Collection[str], info: ConceptInfo
) -> None:
    """Raises InputError where the tensors of a layer do not fit together, or are not finite."""
    for part in ("U", "V"):
        if getattr(basis, part).ndim != 2:
            shape = tuple(getattr(basis, part).shape)
            raise InputError(f"{part} of {name!r} has shape {shape}; it must have two sides. Get the concept again")
    r, rows, columns = info.band.rank, len(basis.U), len(basis.V)
    shapes = {"U": (rows, r), "S": (r,), "V": (columns, r), "A": (rows, r), "B": (columns, r)}
    shapes |= {"X_U": (r, r), "X_V": (r, r), "c": (r,)}
    if trained.keys() - {"c"} != set(needed):
        raise InputError(f"{name!r} holds {', '.join(trained)}; {info.mode} needs {', '.join(needed)}")
    for part, tensor in {**basis._asdict(), **trained}.items():
        if tuple(tensor.shape) != shapes[part]:
            raise InputError(f"{part} of {name!r} has shape {tuple(tensor.shape)}, rank {r} needs {shapes[part]}")
        _check_finite(f"{name}.{part}", tensor)
    height, width = info.kernels.get(name, (1, 1))
    if height < 1 or width < 1 or columns % (height * width):
        raise InputError(f"{name!r} has {columns} inputs, which a kernel of {height} x {width} does not divide")


def check_embeddings(embeddings: Mapping[str, Tensor], info: ConceptInfo) -> None:
    """Raises InputError where the vectors of a trigger are of other text parts, too many, misshapen or not finite."""
    if tuple(embeddings) != info.text_parts:
        got = ", ".join(embeddings) or "none"
        raise InputError(f"embeddings of concept {info.name!r} are for {got}, not {', '.join(info.text_parts)}")
    for part, rows in embeddings.items():
        shape = tuple(rows.shape)
        if rows.ndim != 2 or not 1 <= len(rows) <= MAX_VECTORS or shape[1] < 1:
            raise InputError(
                f"{part} of concept {info.name!r} has embeddings {shape}; give (n, width), n at most {MAX_VECTORS}"
            )
        _check_finite(f"embeddings.{part}", rows)
    if len({len(rows) for rows in embeddings.values()}) > 1:
        raise InputError(f"the text parts of concept {info.name!r} have different numbers of vectors; train it again")


def _check_finite(name: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise InputError(f"tensor {name!r} holds NaN or infinity; train the concept again at a lower learning rate")
