"""What the Fuse tab does, apart from its widgets: checking concepts together, and saving them as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spectral_fusion.errors import InputError, shown
from spectral_fusion_app.engine import Engine
from spectral_fusion_app.jobs import Job
from spectral_fusion_app.library.shelf import Bands
from spectral_fusion_app.studio import Studio
from spectral_fusion_app.visitors import Visitor

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept
    from spectral_fusion.fusion import OnOverlap

LoraFormat = Literal["diffusers", "kohya"]


@dataclass(frozen=True)
class Check:
    """How concepts go together. `overlaps`: [concept][concept], 0 disjoint to 1 the same span."""

    names: tuple[str, ...]
    overlaps: list[list[float]]
    tolerance: float
    bands: Bands

    @property
    def disjoint(self) -> bool:
        """Whether no two of them share a direction."""
        rows = enumerate(self.overlaps)
        return all(value <= self.tolerance for i, row in rows for j, value in enumerate(row) if i != j)


class Fusing:
    """Concepts of the library, checked and saved together. `folder`: where fused pipelines go."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio, self.folder = studio, folder.absolute()

    def check(self, names: Sequence[str]) -> Check:
        """Measure how much the bands of concepts overlap.

        Raises:
            InputError: none was named, one is not in the library, or they are of different bases.
        """
        from spectral_fusion.fusion import OVERLAP_TOLERANCE, check_together

        concepts = self._concepts(dict.fromkeys(names, 1.0))
        matrix = [[1.0 if i == j else 0.0 for j in range(len(concepts))] for i in range(len(concepts))]
        place = {concept.name: number for number, concept in enumerate(concepts)}
        for overlap in check_together(list(concepts), "allow"):
            i, j = place[overlap.first], place[overlap.second]
            matrix[i][j] = matrix[j][i] = overlap.value
        base = next(iter(concepts)).base
        bands = Bands.of([info for info in self.studio.library.list() if info.base == base])
        return Check(tuple(place), matrix, OVERLAP_TOLERANCE, bands)

    def save_folder(
        self, owner: Visitor, weights: Mapping[str, float], name: str, *, overlap: bool, replace: bool
    ) -> Job:
        """Fuse into the loaded base and write it as a diffusers folder `name`; the job's result is its path.

        Args:
            overlap: go on although bands overlap.
            replace: a folder of this name that is there.

        Raises:
            InputError: the name is none for a folder or taken, or too much is waiting. The job raises it where the
                concepts do not go together.
        """
        from spectral_fusion.concept import check_name
        from spectral_fusion.fusion import fuse

        if not weights:
            raise InputError("no concept is chosen; choose one or more")
        try:
            target = self.folder / check_name(name.strip())
        except InputError as error:
            raise InputError(f"{shown(name.strip(), 40)} cannot name a folder; use letters, digits, - or _") from error
        if target.exists() and not replace:
            raise InputError(f"{target.name!r} exists already; give another name, or replace it")

        def work(engine: Engine, _: Job) -> Path:
            fusion = fuse(engine.base, self._concepts(weights), on_overlap=allowed(overlap))
            try:
                return fusion.save(target, force=replace)
            finally:
                fusion.undo()

        return self.studio.submit(owner, work, f"save {target.name}")

    def save_lora(self, weights: Mapping[str, float], to: LoraFormat, folder: Path, *, overlap: bool) -> list[Path]:
        """Write the concepts as one LoRA and an embedding for each trigger; returns the files.

        Raises:
            InputError: they do not go together, a weight is no number, or the format is unknown.
        """
        from spectral_fusion.concept import export_embedding, export_lora
        from spectral_fusion.fusion import check_together

        concepts = self._concepts(weights)
        check_together(list(concepts), allowed(overlap))
        lora = export_lora(concepts, folder / f"{'-'.join(weights)[:100]}-{to}.safetensors", to)
        return [lora, *(export_embedding(concept, folder / f"{concept.name}.safetensors") for concept in concepts)]

    def _concepts(self, weights: Mapping[str, float]) -> dict[Concept, float]:
        if not weights:
            raise InputError("no concept is chosen; choose one or more")
        library = self.studio.library
        return {library.get(name): weight for name, weight in weights.items()}


def allowed(overlap: bool) -> OnOverlap:
    """What to do where two bands share a direction."""
    return "allow" if overlap else "error"
