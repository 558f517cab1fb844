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
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def to_factors(tensors: Mapping[str, Tensor], scale: float | None = None) -> Factors:
    """The delta of one layer, its alpha included; up (out, k), down (k, in * kernel), float32.

    Args:
        tensors: by the names of `lora_names.split_key`.
        scale: what the product is multiplied by where there is no `alpha`, which counts alpha / rank; None: 1.

    Raises:
        InputError: a half is missing, the method is no product of thin matrices, or a value is not finite.
    """
    for start, kind in FOREIGN:
        if any(name.startswith(start) for name in tensors):
            raise InputError(f"{kind}; LoRA, LoCon, LoHa and decomposed LoKr can be read. Merge it elsewhere")
    if any(not torch.isfinite(tensor.float()).all() for tensor in tensors.values()):
        raise InputError("NaN or infinity; the file is damaged or its training failed, get another")
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
    if "lokr_w2" in tensors:
        raise InputError("LoKr with a full second matrix, which is no low-rank update; merge it elsewhere")
    w2_a, w2_b = _need(tensors, "lokr_w2_a", "lokr_w2_b")
    if "lokr_w1" in tensors:
        w1 = tensors["lokr_w1"]
    else:
        w1_a, w1_b = _need(tensors, "lokr_w1_a", "lokr_w1_b")
        w1 = w1_a @ w1_b
    eye = torch.eye(w1.shape[1], dtype=w1.dtype)
    return Factors(torch.kron(w1, w2_a.flatten(1)), torch.kron(eye, w2_b.flatten(1))), len(w2_b)
