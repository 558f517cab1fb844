"""What is trained: the kinds of adapter that the methods fuse. Methods that differ in fusing only share a family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["additive", "rotational", "lora", "orthogonal", "embeddings"]
Place = Literal["own", "first", "lowest"]
Deal = Literal["blocks", "interleaved", "balanced"]

CROSS_ATTENTION = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of adapter and how it is trained.

    name: runs are filed under it: what is trained in another way gets another name.
    kind: additive and rotational are the paper's. lora is a stock LoRA. orthogonal is "Orthogonal Adaptation for
        Modular Customization" (Po et al., 2023): a LoRA whose A is a fixed slice of one orthogonal basis that all
        concepts share, so that only B is trained. embeddings trains the tokens only.
    place: the band of concept number i: number i, always number 0, or number i from the lowest singular values up.
    deal: how directions make bands, see `study.partition`.
    private: after each step A and B are projected onto the band and a private slice of what no band holds.
    neutral_penalty: weight of the energy that the delta adds to activations of neutral prompts.
    target: endings of the layers to adapt; None: what the project adapts.
    rank_factor: times the study's rank, where fewer layers shall have as many trainable numbers.
    joint: one adapter of all concepts together, trained on all their photos at once.
    in_context: trained beside the concepts before it, as `spectral_fusion.training.context` does it; else on its own.
    """

    name: str
    kind: Kind = "additive"
    place: Place = "own"
    deal: Deal = "blocks"
    private: bool = False
    neutral_penalty: float = 0.0
    target: tuple[str, ...] | None = None
    rank_factor: int = 1
    joint: bool = False
    in_context: bool = False

    @property
    def is_spectral(self) -> bool:
        """Whether it owns a band of singular directions."""
        return self.kind in ("additive", "rotational")

    @property
    def tuned_as(self) -> str:
        """The family whose learning rates it takes.

        They are chosen once for each kind of adapter, and once more for the lowest bands: a shift of a vector moves
        the weight by its singular value, and those are several times smaller there.
        """
        return self.place if self.place == "lowest" else self.kind

    def rank(self, rank: int, slots: int, directions: int) -> int:
        """Its rank where additive adapters have `rank`.

        An additive adapter and a LoRA of rank r have r (out + in) numbers a layer; `matched_rank` gives orthogonal
        adaptation as many. A rotational adapter has 2 r^2, which no rank that leaves room for all slots can raise to
        as many: it gets the largest that leaves room.

        Args:
            directions: of the smallest layer.
        """
        if self.kind == "rotational":
            return max(1, directions // slots)
        return rank * self.rank_factor

    def band(self, slot: int, rank: int, directions: int) -> int:
        """The band of concept number `slot`."""
        return {"own": slot, "first": 0, "lowest": directions // rank - 1 - slot}[self.place]


def matched_rank(out: int, inputs: int, rank: int, slots: int) -> int:
    """The rank at which training B (out, rank) alone sets as many numbers as a LoRA of `rank` does in this layer.

    As nearly as disjoint slices of the inputs for all slots allow.
    """
    return max(1, min(round(rank * (out + inputs) / out), inputs // slots))


OWN = Family(name="additive")

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        OWN,
        replace(OWN, name="beside", in_context=True),
        replace(OWN, name="one-band", place="first"),
        replace(OWN, name="lowest", place="lowest"),
        replace(OWN, name="lowest-beside", place="lowest", in_context=True),
        replace(OWN, name="rotational", kind="rotational"),
        replace(OWN, name="lora", kind="lora"),
        replace(OWN, name="lora-beside", kind="lora", in_context=True),
        replace(OWN, name="orthogonal", kind="orthogonal"),
        replace(OWN, name="embeddings", kind="embeddings"),
        replace(OWN, name="joint", joint=True),
        replace(OWN, name="private", private=True),
        replace(OWN, name="neutral", neutral_penalty=1.0),
        replace(OWN, name="interleaved", deal="interleaved"),
        replace(OWN, name="balanced", deal="balanced"),
        replace(OWN, name="interleaved-private", deal="interleaved", private=True),
        replace(OWN, name="cross-attention", target=CROSS_ATTENTION, rank_factor=2),
    )
}
