"""The methods by name: which family each fuses, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spectral_fusion.errors import InputError
from study.families import FAMILIES, Family
from study.methods.applied import Fuse, applying
from study.methods.least_squares import closed_form_weights, gradient_fusion
from study.methods.merging import averaged, dare_merged, off_bands, product_fuse, summed, ties_merged
from study.methods.routing import routed_loras
from study.settings import Settings

OURS = "lowest-beside"
GRADIENT_FUSION = "gradient-fusion"


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    kind: a method of the comparison; a bound, which no user would choose; a variant of ours: what was tried to close
        the gap, and our training beside other concepts with another adapter; or a trial, a variant that is looked at
        on one set of few concepts, and becomes a variant if it promises something there.
    data: whether fusing looks at layer inputs.
    """

    name: str
    title: str
    family: Family
    fuse: Fuse
    kind: Literal["method", "bound", "variant", "trial"] = "method"
    data: bool = False

    @property
    def is_variant(self) -> bool:
        """Of ours, whether it is measured as the others are or only tried."""
        return self.kind in ("variant", "trial")


def all_methods(settings: Settings) -> dict[str, Method]:
    """Every method, in the order of the tables."""
    plain_sum, lora_sum, clear = product_fuse("sum"), applying(summed), applying(off_bands)
    least_squares, best_weighted = applying(gradient_fusion(settings)), applying(closed_form_weights(settings))
    methods = (
        Method(OURS, "spectral, lowest bands, beside each other, sum (ours)", FAMILIES[OURS], plain_sum),
        Method("lowest", "spectral, lowest bands, sum", FAMILIES["lowest"], plain_sum),
        Method("spectral-sum", "spectral, top bands, sum", FAMILIES["additive"], plain_sum),
        Method("spectral-mean", "spectral, top bands, mean", FAMILIES["additive"], product_fuse("mean")),
        Method("one-band", "spectral, all in the top band, sum", FAMILIES["one-band"], plain_sum),
        Method("rotational", "spectral rotational, top bands, sum", FAMILIES["rotational"], plain_sum),
        Method("lora-sum", "LoRA, sum", FAMILIES["lora"], lora_sum),
        Method("lora-mean", "LoRA, mean (FedAvg)", FAMILIES["lora"], applying(averaged)),
        Method("lora-ties", "LoRA, ties", FAMILIES["lora"], applying(ties_merged)),
        Method("lora-dare", "LoRA, dare_linear", FAMILIES["lora"], applying(dare_merged)),
        Method("orthogonal", "orthogonal adaptation, sum", FAMILIES["orthogonal"], lora_sum),
        Method(GRADIENT_FUSION, "LoRA, gradient fusion", FAMILIES["lora"], least_squares, data=True),
        Method("embeddings", "token embeddings only", FAMILIES["embeddings"], lora_sum, "bound"),
        Method("joint", "joint training of all", FAMILIES["joint"], lora_sum, "bound"),
        Method("spectral-beside", "spectral, top bands, beside each other", FAMILIES["beside"], plain_sum, "variant"),
        Method("lora-beside", "LoRA, beside each other", FAMILIES["lora-beside"], lora_sum, "variant"),
        Method("routed", "spectral, lowest bands, routed", FAMILIES["lowest"], product_fuse("routed"), "variant"),
        Method("lora-routed", "LoRA, routed", FAMILIES["lora"], applying(routed_loras), "variant", data=True),
        Method("private", "A, B kept in band and private slice", FAMILIES["private"], plain_sum, "trial"),
        Method("neutral", "penalty on neutral prompts", FAMILIES["neutral"], plain_sum, "trial"),
        Method("interleaved", "interleaved bands", FAMILIES["interleaved"], plain_sum, "trial"),
        Method("balanced", "bands of equal energy", FAMILIES["balanced"], plain_sum, "trial"),
        Method(
            "interleaved-private",
            "interleaved, band and private slice",
            FAMILIES["interleaved-private"],
            plain_sum,
            "trial",
        ),
        Method(
            "cross-attention", "cross-attention only, twice the rank", FAMILIES["cross-attention"], plain_sum, "trial"
        ),
        Method("off-bands", "A, B projected off other bands when fused", FAMILIES["additive"], clear, "trial"),
        Method("weights", "weights in closed form", FAMILIES["additive"], best_weighted, "trial", data=True),
        Method("spectral-gradient", "gradient fusion", FAMILIES["additive"], least_squares, "trial", data=True),
    )
    return {method.name: method for method in methods}


def choose_methods(settings: Settings, names: Sequence[str]) -> list[Method]:
    """The methods of these names in the order of the tables; all of them where none is named.

    Raises:
        InputError: a name is unknown.
    """
    known = all_methods(settings)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"method {unknown[0]!r} is unknown; use some of {', '.join(known)}")
    return [method for name, method in known.items() if not names or name in names]
