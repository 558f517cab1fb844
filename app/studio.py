"""The one loaded base and what is done with it, apart from widgets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spectral_fusion.errors import InputError
from spectral_fusion_app.history import History
from spectral_fusion_app.jobs import Job, Line
from spectral_fusion_app.paths import inside
from spectral_fusion_app.settings import AppSettings

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    from spectral_fusion.concept import ConceptInfo, Library
    from spectral_fusion.generate import GenerateConfig, Step

logger = logging.getLogger(__name__)

PREVIEWS = 8  # of each picture: each costs a run of the decoder


@dataclass(frozen=True)
class BaseState:
    """How it stands with the base.

    Attributes:
        kind: a failed one has no pipeline.
        base: what is loaded, or being loaded.
        message: of a failure, one line.
    """

    kind: Literal["loading", "ready", "failed"]
    base: str
    message: str = ""


@dataclass(frozen=True)
class Request:
    """What one press of Generate asks for.

    Attributes:
        weights: concept names of the library -> weight.
        factors: one row of pictures for each: all weights are multiplied by it. More than one also give a sheet.
    """

    config: GenerateConfig
    weights: Mapping[str, float]
    factors: tuple[float, ...] = (1.0,)

    @property
    def pictures(self) -> int:
        """How many pictures this makes, the sheet not counted."""
        return self.config.num_images * len(self.factors)


@dataclass(frozen=True)
class Progress:
    """Where a request stands.

    Attributes:
        step, steps: of the picture that is being made, counted from 1.
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

    @property
    def fraction(self) -> float:
        """Of the whole request, 0 to 1."""
        return (self.picture - 1 + self.step / self.steps) / self.pictures


class Studio:
    """The base, the library and the history of one server; `start` begins to load the base, behind the first page."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings
        self.history = History(settings.pictures)
        self.line = Line(settings.limits.waiting)
        self.state = BaseState("loading", settings.base)
        self.fingerprint = ""
        self._pipeline: StableDiffusionPipeline | None = None

    @property
    def library(self) -> Library:
        """The library of concepts."""
        from spectral_fusion.concept import Library

        return Library(self.settings.library)

    def start(self) -> Job:
        """Load the base of the settings; returns at once."""
        return self.line.submit("base", lambda _: self._load(self.settings.base))

    def load(self, base: str) -> Job:
        """Change the base, after everything that is in line; the one before stays where this fails.

        Raises:
            InputError: a folder or file that visitors may not name.
        """
        base = self.check_base(base)
        return self.line.submit("base", lambda _: self._load(base))

    def check_base(self, base: str) -> str:
        """The base that a visitor named: toybox, the one of the settings, a hub id, or a path in an allowed folder.

        Raises:
            InputError: it is a path outside.
        """
        from spectral_fusion.pipeline.load import HUB_ID

        base = base.strip()
        if base in ("toybox", self.settings.base):
            return base
        is_hub_id = HUB_ID.fullmatch(base) and ".." not in base and not Path(base).exists()
        try:
            path = inside(self.settings.folders, base)
        except InputError:
            if is_hub_id:
                return base
            raise
        return base if is_hub_id and not path.exists() else str(path)

    def bases(self) -> list[str]:
        """What can be loaded: toybox, the base of the settings, and what lies in the roots."""
        found = [path for root in self.settings.roots for path in sorted(root.glob("*.safetensors"))]
        found += [path.parent for root in self.settings.roots for path in sorted(root.glob("*/model_index.json"))]
        return list(dict.fromkeys(["toybox", self.settings.base, *map(str, found)]))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the pictures that the base was trained on; (64, 64) where none is loaded."""
        if self._pipeline is None:
            return 64, 64
        edge = self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor
        return edge, edge

    def concepts(self) -> list[ConceptInfo]:
        """The library's concepts that fit the base; none while it loads."""
        if not self.fingerprint:
            return []
        return [info for info in self.library.list() if info.base == self.fingerprint]

    def submit(self, key: str, work: Callable[[StableDiffusionPipeline, Job], Any]) -> Job:
        """Do work with the loaded base, alone, after all that came before; `cancel(key)` stops it.

        The work leaves the pipeline as it was. It looks at `job.cancelled` now and then, and may set `job.update`.

        Raises:
            InputError: too much is waiting.
        """
        return self.line.submit(key, lambda job: work(self._ready_pipeline(), job))

    def cancel(self, key: str) -> int:
        """Stop what this key has running or waiting; returns how many jobs."""
        return self.line.cancel(key)

    def generate(self, key: str, request: Request) -> Job:
        """Make pictures; the job's updates are `Progress`, its result the files, a sheet of several rows at the end.

        Raises:
            InputError: more than the limits allow, or too much is waiting.
        """
        self._check(request)
        return self.submit(key, lambda pipeline, job: self._generate(pipeline, job, request))

    def _ready_pipeline(self) -> StableDiffusionPipeline:
        if self._pipeline is None:
            raise InputError(f"no base is loaded: {self.state.message}; choose another base")
        return self._pipeline

    def _load(self, base: str) -> None:
        """In the line's thread: the first import of torch and diffusers happens here."""
        before = self.state if self._pipeline is not None else None
        self.state = BaseState("loading", base)
        try:
            from spectral_fusion.concept import base_fingerprint
            from spectral_fusion.pipeline.load import best_device, best_dtype, load_base

            device = best_device()
            pipeline = load_base(base, dtype=best_dtype(device), device=device)
            self.fingerprint = base_fingerprint(pipeline)
        except Exception as error:
            self.state = before or BaseState("failed", base, str(error).splitlines()[0] if str(error) else repr(error))
            if not isinstance(error, InputError):
                logger.exception("base %s could not be loaded", base)
            raise
        self._pipeline = pipeline
        self.state = BaseState("ready", base)

    def _check(self, request: Request) -> None:
        limits, config = self.settings.limits, request.config
        prompts = [config.prompt, config.negative_prompt, *(region.prompt for region in config.regions)]
        asked = {
            "pictures": (request.pictures, limits.pictures),
            "steps": (config.num_inference_steps, limits.steps),
            "pixels on an edge": (max(config.width or 0, config.height or 0), limits.edge),
            "regions": (len(config.regions), limits.regions),
            "characters in a prompt": (max(map(len, prompts)), limits.prompt),
        }
        for what, (value, limit) in asked.items():
            if value > limit:
                raise InputError(f"{value} {what} are more than the {limit} that this page allows; ask for less")

    def _generate(self, pipeline: StableDiffusionPipeline, job: Job, request: Request) -> list[Path]:
        from spectral_fusion.fuse import fuse
        from spectral_fusion.picture import contact_sheet

        concepts = {self.library.get(name): weight for name, weight in request.weights.items()}
        rows: list[list[Any]] = []
        files: list[Path] = []
        for factor in request.factors:
            scaled = {concept: weight * factor for concept, weight in concepts.items()}
            fusion = fuse(pipeline, scaled) if scaled else None
            try:
                notes = fusion.notes if fusion else {}
                rows.append(self._row(pipeline, job, replace(request.config, notes=notes), request, files))
            finally:
                if fusion:
                    fusion.undo()
        if len(rows) > 1 and rows[-1] and not job.cancelled:
            seeds = [f"seed {picture.seed}" for picture in rows[0]]
            images = [[picture.image for picture in row] for row in rows]
            sheet = contact_sheet(images, [f"x {factor:g}" for factor in request.factors], seeds)
            files.append(self.history.add(sheet, rows[0][0].parameters, "grid"))
        return files

    def _row(
        self, pipeline: StableDiffusionPipeline, job: Job, config: GenerateConfig, request: Request, files: list[Path]
    ) -> list[Any]:
        """One picture for each seed, each kept as soon as it is done."""
        from spectral_fusion.generate import generate

        def watch(step: Step) -> bool:
            every = max(1, step.steps // PREVIEWS)
            preview = step.preview() if step.step % every == 0 and step.step < step.steps else None
            if preview is None and isinstance(job.update, Progress) and step.step > 1:
                preview = job.update.preview
            job.update = Progress(step.step, step.steps, len(files) + 1, request.pictures, preview, tuple(files))
            return not job.cancelled

        row: list[Any] = []
        for number in range(config.num_images):
            if job.cancelled:
                break
            row += generate(pipeline, replace(config, seed=config.seed + number, num_images=1), on_step=watch)
            if len(row) == number + 1:
                files.append(self.history.add(row[-1].image, row[-1].parameters, str(row[-1].seed)))
        return row


def device_and_memory() -> str:
    """Where pictures are made and how much memory that takes now: `CPU · 1.2 of 24 GB`."""
    import psutil
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name, used = torch.cuda.get_device_name(), total - free
    else:
        name, used, total = "CPU", psutil.Process().memory_info().rss, psutil.virtual_memory().total
    return f"{name} · {used / 1e9:.1f} of {total / 1e9:.0f} GB"
