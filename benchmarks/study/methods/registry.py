"""The methods by name: which family each fuses, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectral_fusion.errors import InputError
from study.families import FAMILIES, Family
from study.methods.applied import Fuse, applying
from study.methods.least_squares import closed_form_weights, gradient_fusion
from study.methods.merging import averaged, dare_merged, product_fuse, summed, ties_merged
from study.settings import Settings

OURS = "spectral-sum"
GRADIENT_FUSION = "gradient-fusion"


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    kind: free needs neither training nor data to fuse; data looks at layer inputs; bound is none that a user could
        choose, or would; variant is one of the ways tried to close the gap, free too.
    """

    name: str
    title: str
    family: Family
    fuse: Fuse
    kind: str = "free"


def all_methods(settings: Settings) -> dict[str, Method]:
    """Every method, in the order of the tables."""
    plain_sum, mean = product_fuse("sum"), product_fuse("mean")
    lora_sum = applying(summed)
    rows = (
        (OURS, "spectral, disjoint bands, sum (ours)", "additive", plain_sum, "free"),
        ("spectral-mean", "spectral, disjoint bands, mean", "additive", mean, "free"),
        ("one-band", "spectral, all in one band, sum", "one-band", plain_sum, "free"),
        ("lowest", "spectral, lowest bands, sum", "lowest", plain_sum, "free"),
        ("rotational", "spectral rotational, disjoint bands, sum", "rotational", plain_sum, "free"),
        ("lora-sum", "LoRA, sum", "lora", lora_sum, "free"),
        ("lora-mean", "LoRA, mean (FedAvg)", "lora", applying(averaged), "free"),
        ("lora-ties", "LoRA, ties", "lora", applying(ties_merged), "free"),
        ("lora-dare", "LoRA, dare_linear", "lora", applying(dare_merged), "free"),
        ("orthogonal", "orthogonal adaptation, sum", "orthogonal", lora_sum, "free"),
        (GRADIENT_FUSION, "LoRA, gradient fusion", "lora", applying(gradient_fusion(settings)), "data"),
        ("embeddings", "token embeddings only", "embeddings", lora_sum, "bound"),
        ("joint", "joint training of all", "joint", applying(summed), "bound"),
        ("private", "variant: A, B in band and private slice", "private", plain_sum, "variant"),
        ("neutral", "variant: penalty on neutral prompts", "neutral", plain_sum, "variant"),
        ("interleaved", "variant: interleaved bands", "interleaved", plain_sum, "variant"),
        ("balanced", "variant: bands of equal energy", "balanced", plain_sum, "variant"),
        ("interleaved-private", "variant: interleaved, private slice", "interleaved-private", plain_sum, "variant"),
        ("cross-attention", "variant: cross-attention only, twice the rank", "cross-attention", plain_sum, "variant"),
        ("spectral-gradient", "spectral, gradient fusion", "additive", applying(gradient_fusion(settings)), "data"),
        ("weights", "variant: weights in closed form", "additive", applying(closed_form_weights(settings)), "data"),
    )
    return {name: Method(name, title, FAMILIES[family], fuse, kind) for name, title, family, fuse, kind in rows}


def choose_methods(settings: Settings, names: Sequence[str]) -> list[Method]:
    """The methods of these names in the order of the tables; all of them where none is named.

    Raises:
        InputError: a name is unknown.
    """
    known = all_methods(settings)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"method {unknown[0]!r} is unknown; use some of {', '.join(known)}")
    return [method for name, method in known.items() if not names or name in names]
