"""From the tensors that a LoRA file has for one layer to the factors of its delta, exactly or not at all.

What is a product of thin matrices becomes `Factors`: LoRA, LoCon with or without its middle tensor, LoHa, and LoKr of a
decomposed second matrix. What is none is refused by name: DoRA rescales the whole weight, OFT turns it, IA3 scales it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors

FOREIGN = (
    ("dora_scale", "DoRA, which rescales the whole weight"),
    ("oft_", "OFT, which turns the whole weight"),
    ("boft_", "BOFT, which turns the whole weight"),
    ("on_input", "IA3, which scales the whole weight"),
    ("diff_b", "a full difference with biases"),
    ("diff", "a full difference of weights"),
    ("hada_t", "LoHa with Tucker tensors"),
    ("lokr_t", "LoKr with Tucker tensors"),
    ("bias_", "a LoRA with sparse biases"),
    ("scale", "a LoRA with a learned scale"),
)
LARGEST_RANK = 16384  # of a product; no layer has more directions
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def to_factors(tensors: Mapping[str, Tensor], scale: float | None = None) -> Factors:
    """The delta of one layer, its alpha included; up (out, k), down (k, in * kernel), float32.

    Args:
        tensors: by the names of `lora_names.split_key`.
        scale: what the product is multiplied by where there is no `alpha`, which counts alpha / rank; None: 1.

    Raises:
        InputError: a half is missing, the method is no product of thin matrices, or a value is not finite.
    """
    refuse_foreign(tensors)
    if any(not torch.isfinite(tensor.float()).all() for tensor in tensors.values()):
        raise InputError("NaN or infinity; the file is damaged or its training failed, get another")
    measure(tensors)
    double = {name: tensor.double() for name, tensor in tensors.items()}
    if any(name.startswith("hada_") for name in double):
        factors, rank = _loha(double)
    elif any(name.startswith("lokr_") for name in double):
        factors, rank = _lokr(double)
    else:
        factors, rank = _lora(double)
    alpha = double.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise InputError(f"an alpha of shape {tuple(alpha.shape)}; it is one number")
    number = float(alpha) / rank if alpha is not None else 1.0 if scale is None else scale
    return Factors((factors.up * number).float(), factors.down.float())


def refuse_foreign(tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError, which names the method, where it is no product of thin matrices."""
    for start, kind in FOREIGN:
        if any(name.startswith(start) for name in tensors):
            raise InputError(f"{kind}; LoRA, LoCon, LoHa and decomposed LoKr can be read. Merge it elsewhere")


def measure(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """The sides of a layer's delta, (out, in * kernel), from the shapes alone.

    Raises:
        InputError: a half is missing, is no matrix of numbers, or does not fit the other; or the rank is beyond reason.
    """
    for name, tensor in tensors.items():
        if not name.startswith(("down", "up", "mid", "hada_", "lokr_")):
            continue
        if not tensor.is_floating_point() or tensor.ndim < 2 or not tensor.numel():
            kind = f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
            raise InputError(f"{name} of shape {kind}, not a matrix of floats; the file is damaged, download it again")
    sides = {name: (len(tensor), tensor[0].numel()) for name, tensor in tensors.items() if tensor.ndim > 1}
    if any(name.startswith("hada_") for name in tensors):
        _need(tensors, *HADA)
        (out, inner), other = _product(sides, *HADA[:2]), _product(sides, *HADA[2:])
        if (out, inner) != other:
            raise InputError(f"products of shapes {out, inner} and {other}; the file is not whole, download it again")
        rank = sides["hada_w1_b"][0] * sides["hada_w2_b"][0]
    elif any(name.startswith("lokr_") for name in tensors):
        if "lokr_w2" in tensors:
            raise InputError("LoKr with a full second matrix, which is no low-rank update; merge it elsewhere")
        _need(tensors, "lokr_w2_a", "lokr_w2_b")
        if "lokr_w1" not in tensors:
            _need(tensors, "lokr_w1_a", "lokr_w1_b")
        first = sides["lokr_w1"] if "lokr_w1" in tensors else _product(sides, "lokr_w1_a", "lokr_w1_b")
        second = _product(sides, "lokr_w2_a", "lokr_w2_b")
        out, inner, rank = first[0] * second[0], first[1] * second[1], first[1] * sides["lokr_w2_b"][0]
    else:
        _need(tensors, "down", "up")
        rank, inner = sides["down"]
        out = sides["up"][0]
        if (mid := tensors.get("mid")) is not None:
            inner *= mid[0][0].numel()
    if rank > LARGEST_RANK:
        raise InputError(f"rank {rank}, and no layer has more than {LARGEST_RANK} directions; get another file")
    return out, inner


def _product(sides: Mapping[str, tuple[int, int]], left: str, right: str) -> tuple[int, int]:
    """The sides of a product. Raises InputError where its halves do not fit."""
    (rows, inner), (other, columns) = sides[left], sides[right]
    if inner != other:
        raise InputError(f"halves of ranks {inner} and {other}; the file is not whole, download it again")
    return rows, columns


def _need(tensors: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    if missing := [name for name in names if name not in tensors]:
        raise InputError(f"{', '.join(tensors)} without {', '.join(missing)}; the file is not whole, download it again")
    return [tensors[name] for name in names]


def _lora(tensors: Mapping[str, Tensor]) -> tuple[Factors, int]:
    """LoRA and LoCon: down (r, in) or (r, in, kh, kw), up (out, r) or (out, r, 1, 1); mid (r, r, kh, kw)."""
    down, up = _need(tensors, "down", "up")
    rank = len(down)
    if (mid := tensors.get("mid")) is not None:
        if mid.ndim != 4 or mid.shape[1] != rank or mid.shape[0] != up.flatten(1).shape[1]:
            raise InputError(f"a middle tensor of shape {tuple(mid.shape)} between rank {rank}; download it again")
        down = torch.einsum("pqhw,qi->pihw", mid, down.flatten(1))
    up, down = up.flatten(1), down.flatten(1)
    if up.shape[1] != len(down):
        raise InputError(f"halves of ranks {len(down)} and {up.shape[1]}; the file is not whole, download it again")
    return Factors(up, down), rank


def _loha(tensors: Mapping[str, Tensor]) -> tuple[Factors, int]:
    """`(w1_a w1_b) * (w2_a w2_b)`, element by element: the products of all pairs of columns, and of rows. Rank r^2."""
    w1_a, w1_b, w2_a, w2_b = (tensor.flatten(1) for tensor in _need(tensors, *HADA))
    up = torch.einsum("op,oq->opq", w1_a, w2_a).flatten(1)
    down = torch.einsum("pi,qi->pqi", w1_b, w2_b).flatten(0, 1)
    return Factors(up, down), len(w1_b)


def _lokr(tensors: Mapping[str, Tensor]) -> tuple[Factors, int]:
    """`kron(w1, w2_a w2_b) = kron(w1, w2_a) kron(1, w2_b)`: rank r times the columns of w1."""
    w2_a, w2_b = _need(tensors, "lokr_w2_a", "lokr_w2_b")
    if "lokr_w1" in tensors:
        w1 = tensors["lokr_w1"]
    else:
        w1_a, w1_b = _need(tensors, "lokr_w1_a", "lokr_w1_b")
        w1 = w1_a @ w1_b
    eye = torch.eye(w1.shape[1], dtype=w1.dtype)
    return Factors(torch.kron(w1, w2_a.flatten(1)), torch.kron(eye, w2_b.flatten(1))), len(w2_b)
