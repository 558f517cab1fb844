"""One request for pictures, as the line's thread carries it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_fusion.base.asked import ControlAsked
from spectral_fusion_app import engine
from spectral_fusion_app.create.grid import Axis, check_axes, write_axes
from spectral_fusion_app.create.history import History
from spectral_fusion_app.engine import Engine
from spectral_fusion_app.jobs import Job
from spectral_fusion_app.settings import Limits

if TYPE_CHECKING:
    from PIL import Image

    from spectral_fusion.generation import GenerateConfig, Picture, Step
    from spectral_fusion_app.engine import Drawn

PREVIEWS = 8  # of each picture, at most: each costs a run of the decoder
PREVIEW_SHARE = 0.04  # of the time, which previews after the first may take
SHEET_EDGE = 192  # px that a picture takes on a sheet at least, so that the labels have room


@dataclass(frozen=True)
class Cell:
    """One picture to make."""

    config: GenerateConfig
    weights: Mapping[str, float]

    def in_places(self) -> GenerateConfig:
        """The settings where each region holds its concepts at the weights of this picture."""
        regions = tuple(
            replace(region, concepts=tuple((name, self.weights[name]) for name, _ in region.concepts))
            for region in self.config.regions
        )
        return replace(self.config, regions=regions)


@dataclass(frozen=True)
class Request:
    """What one press of Create asks for.

    Attributes:
        weights: concept names of the library -> weight.
        axes: of a grid; the first gives its rows, the second its columns, else the seeds do.
        loras: names of those that are LoRAs of other programs, which act beside the weights.
        control: a picture that a ControlNet reads.

    Raises:
        InputError: a grid that cannot be drawn.
    """

    config: GenerateConfig
    weights: Mapping[str, float]
    axes: tuple[Axis, ...] = ()
    loras: frozenset[str] = frozenset()
    control: ControlAsked | None = None

    def __post_init__(self) -> None:
        check_axes(self.axes, self.weights, self.config.num_images)

    @property
    def placed(self) -> bool:
        """Whether one acts in a region alone, in some of the steps, or is a LoRA: then none is fused in the weights."""
        return bool(self.loras or self.config.spans) or any(region.concepts for region in self.config.regions)

    @property
    def pictures(self) -> int:
        """How many pictures this makes, the sheet not counted."""
        count = self.config.num_images
        for axis in self.axes:
            count *= len(axis.values)
        return count

    @property
    def passes(self) -> int:
        """How often each picture is denoised: places that the model finds, itself, enlarged, and each subject."""
        config = self.config
        if config.composite:  # the whole, each subject, the ground
            apart = 2 + len(config.regions)
            return apart + (config.upscale > 1) + (len(config.regions) if config.detail else 0)
        whole = not (config.init_image is not None and config.strength == 0)
        found = any(region.is_found for region in config.regions)
        return max(1, found + whole + (config.upscale > 1) + (len(config.regions) if config.detail else 0))

    def rows(self) -> list[list[Cell]]:
        """All pictures, row by row. Raises InputError where a value of the grid cannot be used."""
        down = self.axes[0] if self.axes else Axis("weights", (1.0,))
        rows = []
        for value in down.values:
            config, weights = down.apply(value, self.config, self.weights)
            if len(self.axes) == 2:
                across = self.axes[1]
                found = [across.apply(other, config, weights) for other in across.values]
            else:
                found = [(replace(config, seed=config.seed + n), weights) for n in range(self.config.num_images)]
            rows.append([Cell(replace(config, num_images=1), dict(weights)) for config, weights in found])
        return rows


@dataclass(frozen=True)
class Progress:
    """Where a request stands.

    Attributes:
        step, steps: of the pass that is being made, counted from 1.
        pass_, passes: of the picture, counted from 1.
        picture, pictures: counted from 1.
        preview: what can be seen of it so far.
        finished: files of the pictures that are done.
    """

    step: int
    steps: int
    picture: int
    pictures: int
    preview: Image.Image | None
    finished: tuple[Path, ...]
    pass_: int = 1
    passes: int = 1

    @property
    def fraction(self) -> float:
        """Of the whole request, 0 to 1."""
        own = (min(self.pass_, self.passes) - 1 + self.step / self.steps) / self.passes
        return (self.picture - 1 + own) / self.pictures


class Drawing:
    """A request that is being carried out; `files` are what is done."""

    def __init__(self, engine_: Engine, job: Job, request: Request, history: History, limits: Limits) -> None:
        self.engine, self.job, self.request, self.history, self.limits = engine_, job, request, history, limits
        self.files: list[Path] = []
        self.end = job.started + limits.seconds
        self.next_preview = 0.0

    def run(self, find: Callable[[str], Drawn]) -> list[Path]:
        """Make the pictures, each kept as soon as it is done, and a sheet of a grid. `find`: what has a name."""
        rows = self.request.rows()
        concepts = {name: find(name) for name in self.request.weights}
        self._check_length(concepts.values())
        done: list[list[Picture]] = [[] for _ in rows]
        with ExitStack() as held:
            weights: Mapping[str, float] | None = None
            notes: dict[str, str] = {}
            for row, cells in zip(done, rows, strict=True):
                for cell in cells:
                    if self.job.cancelled:
                        return self.files
                    given = {concepts[name]: weight for name, weight in cell.weights.items()}
                    if self.request.placed:
                        row += self._draw(cell.in_places(), given)
                        continue
                    if cell.weights != weights:
                        held.close()
                        weights = cell.weights
                        notes = dict(held.enter_context(self.engine.holding(given)))
                    row += self._draw(replace(cell.config, notes=notes), {})
        if self.request.axes and all(len(row) == len(cells) for row, cells in zip(done, rows, strict=True)):
            self.files.append(self._sheet(done))
        return self.files

    def _check_length(self, concepts: Iterable[Drawn]) -> None:
        config = self.request.config
        prompts = [config.prompt, config.negative_prompt, *(region.prompt for region in config.regions)]
        self.engine.check_length(prompts, concepts, self.limits.tokens)

    def _draw(self, config: GenerateConfig, concepts: Mapping[Drawn, float]) -> list[Picture]:
        if self.request.control is not None:
            config = replace(config, control=self.engine.control(*self.request.control))
        pictures = self.engine.draw(config, concepts, self._watch)
        for picture in pictures:
            self.files.append(self.history.add(picture.image, picture.parameters, str(picture.seed)))
        return pictures

    def _watch(self, step: Step) -> bool:
        """Tell how far it is; whether to go on."""
        preview = self._preview(step)
        before = self.job.update
        if preview is None and isinstance(before, Progress) and step.step > 1:
            preview = before.preview
        number, pass_ = len(self.files) + 1, 1
        if isinstance(before, Progress) and before.picture == number:
            pass_ = before.pass_ + (step.step <= before.step)  # the steps begin again
        pictures, files = self.request.pictures, tuple(self.files)
        self.job.update = Progress(step.step, step.steps, number, pictures, preview, files, pass_, self.request.passes)
        if time.monotonic() > self.end:
            self.job.cancel()
        return not self.job.cancelled

    def _preview(self, step: Step) -> Image.Image | None:
        """The picture as far as it is: at its first step, then now and then."""
        now, every = time.monotonic(), max(1, step.steps // PREVIEWS)
        due = step.step == 1 or (step.step % every == 0 and now >= self.next_preview)
        if not due or step.step == step.steps:
            return None
        preview = step.preview()
        took = time.monotonic() - now
        self.next_preview = now + took + took / PREVIEW_SHARE
        return preview

    def _sheet(self, rows: list[list[Picture]]) -> Path:
        """All pictures of a grid as one, which says of itself how the whole grid was made."""
        axes, config = self.request.axes, self.request.config
        down = [axes[0].label(value) for value in axes[0].values]
        if len(axes) == 2:
            across = [axes[1].label(value) for value in axes[1].values]
        else:
            across = [f"seed {picture.seed}" for picture in rows[0]]
        picture = engine.sheet([[_large(one.image) for one in row] for row in rows], down, across)
        first = rows[0][0].parameters
        settings = {
            **first.settings,
            "Steps": str(config.num_inference_steps),
            "Sampler": config.sampler,
            "CFG scale": f"{config.guidance_scale:g}",
            "Seed": str(config.seed),
            "Concepts": engine.weights_text(self.request.weights),
            "Grid": write_axes(axes),
            "Grid pictures": str(config.num_images),
        }
        if not self.request.weights:
            del settings["Concepts"]
        return self.history.add(picture, replace(first, settings=settings), "grid")


def _large(image: Image.Image) -> Any:
    """At a whole multiple of its size, so that it stays sharp."""
    scale = max(1, -(-SHEET_EDGE // max(image.size)))
    return image.resize((image.width * scale, image.height * scale), resample=0)
