"""The one loaded base and what is done with it, apart from widgets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spectral_fusion.base.asked import ControlAsked
from spectral_fusion.errors import InputError
from spectral_fusion_app import engine
from spectral_fusion_app.create.drawing import Drawing, Request
from spectral_fusion_app.create.history import History
from spectral_fusion_app.create.starts import Starts
from spectral_fusion_app.engine import Engine
from spectral_fusion_app.jobs import Job, Line
from spectral_fusion_app.models import Models
from spectral_fusion_app.modules import compute_on_all_cores, import_once
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.visitors import SERVER, Presence, Visitor

if TYPE_CHECKING:
    from spectral_fusion.concept import Concept, ConceptInfo, Library
    from spectral_fusion.concept.community import LoraFile
    from spectral_fusion.generation import GenerateConfig
    from spectral_fusion_app.library.loras import LoraInfo, Loras

logger = logging.getLogger(__name__)

PARTED = 3600.0  # seconds after which a visitor who has left is forgotten


@dataclass(frozen=True)
class BaseState:
    """How it stands with the base.

    Attributes:
        kind: of the base that pictures are made with; a failed one makes none.
        base: what is loaded, or being loaded.
        message: of a failure, one line.
        next: another one that is being loaded meanwhile.
    """

    kind: Literal["loading", "ready", "failed"]
    base: str
    message: str = ""
    next: str = ""


class Studio:
    """The base, the library and the history of one server; `start` begins to load the base, behind the first page."""

    def __init__(self, settings: AppSettings) -> None:
        limits = settings.limits
        self.settings = settings
        self.history = History(settings.pictures)
        self.starts = Starts(settings.starts, limits.edge)
        self.line = Line(limits.waiting, limits.waiting_each)
        self.loads = Line(limits.loads, 1, "bases")  # apart: what takes long, or fails late, stops no picture
        self.presence = Presence()
        self.state = BaseState("loading", settings.base)
        self.on_sweep: list[Callable[[], None]] = []  # what else is to be looked after now and then
        self._engine: Engine | None = None

    @property
    def fingerprint(self) -> str:
        """Of the loaded base; empty where there is none."""
        return self._engine.fingerprint if self._engine else ""

    @property
    def models(self) -> Models:
        """What visitors may name."""
        return Models(self.settings)

    @property
    def library(self) -> Library:
        """The library of concepts."""
        from spectral_fusion.concept import Library

        return Library(self.settings.library)

    def start(self) -> Job:
        """Load the base of the settings, and look after visitors who leave; returns at once."""
        self.presence.watch(self.sweep)
        return self.loads.submit(SERVER, lambda _: self._load(self.settings.base))

    def load(self, owner: Visitor, base: str) -> Job:
        """Change the base: beside the pictures that are made, then after those; the one before stays if this fails.

        Raises:
            InputError: a folder, file or id that visitors may not name, or too many changes are waiting.
        """
        base = self.check_base(base)
        return self.loads.submit(owner, lambda _: self._load(base), f"load {base}")

    def check_base(self, base: str) -> str:
        """The base that a visitor named: a bundled one, the settings' own, a hub id, or a path in an allowed folder.

        Raises:
            InputError: it is a path outside, or an id of the hub where those are not allowed.
        """
        from spectral_fusion.base.bundled import BUNDLED

        base = base.strip()
        return base if base in (*BUNDLED, self.settings.base) else self.models.check(base)

    @property
    def takes_control(self) -> bool:
        """Whether pictures of the loaded base can be controlled by a ControlNet: by one that lies here, or of the hub.

        No hub has one for the bundled bases, which are too small.
        """
        from spectral_fusion.base.bundled import BUNDLED

        if self._engine is None or not self._engine.takes_control:
            return False
        others = self.settings.hub_allowed and self.state.base not in BUNDLED
        return others or bool(self.models.controlnets())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the pictures that the base was trained on; (64, 64) where none is loaded."""
        return self._engine.size if self._engine else (64, 64)

    def places(self, count: int) -> list[list[float]]:
        """Boxes (left, top, right, bottom) where the base puts so many subjects side by side; none while it loads."""
        return self._engine.places(count) if self._engine else []

    def concepts(self) -> list[ConceptInfo]:
        """The library's concepts that fit the base; none while it loads."""
        if not self.fingerprint:
            return []
        return [info for info in self.library.list() if info.base == self.fingerprint]

    @property
    def loras(self) -> Loras:
        """LoRA files of other programs, beside the library."""
        from spectral_fusion_app.library.loras import Loras

        return Loras(self.settings.library)

    def drawable(self) -> list[ConceptInfo | LoraInfo]:
        """What pictures can be made with: the concepts and the LoRAs that fit the base."""
        loras = [info for info in self.loras.list() if info.base == self.fingerprint]
        return [*self.concepts(), *loras]

    def add_lora(self, file: Path, name: str = "", trigger: str = "") -> LoraInfo:
        """Keep a LoRA file for the loaded base. Raises InputError where it fits none of its layers, or no base is."""
        if self._engine is None:
            raise InputError("no base is loaded yet, so this LoRA cannot be read for it; wait until it is")
        base = Path(self.state.base).stem
        return self.loras.add(file, self._engine.shapes, self.fingerprint, base, name=name, trigger=trigger)

    def steps(self, preset: str) -> int:
        """Of a training by this preset; 0 where no base is loaded."""
        return self._engine.steps(preset) if self._engine else 0

    def triggers(self) -> list[str]:
        """Triggers that the base knows by itself."""
        return self._engine.triggers if self._engine else []

    def notes(self, config: GenerateConfig) -> list[str]:
        """A line for each setting that has no effect on the loaded base."""
        return self._engine.notes(config) if self._engine else []

    def submit(self, owner: Visitor, work: Callable[[Engine, Job], Any], label: str = "", about: Any = None) -> Job:
        """Do work with the loaded base, alone, when its turn has come.

        The work leaves the base as it was. It looks at `job.cancelled` now and then, and may set `job.update`.

        Raises:
            InputError: too much is waiting.
        """
        return self.line.submit(owner, lambda job: work(self._ready(), job), label, about)

    def cancel(self, owner: Visitor, id: str | None = None) -> int:
        """Stop what this visitor has running or waiting, or one job of it; returns how many."""
        return self.line.cancel(owner, id)

    def generate(self, owner: Visitor, request: Request, label: str = "", about: Any = None) -> Job:
        """Make pictures; the job's updates are `Progress`, its result the files, a sheet of several rows at the end.

        `label`: for its owner's list, where that is not the prompt.

        Raises:
            InputError: more than the limits allow, or too much is waiting.
        """
        self._check(request)
        request = replace(request, control=self._checked_control(request.control))
        return self.submit(
            owner, lambda engine, job: self._draw(engine, job, request), label or request.config.prompt, about
        )

    def park(self) -> None:
        """Take the base off the GPU until the next picture, for a training that needs the room."""
        self.line.submit(SERVER, lambda _: self._engine and self._engine.park())

    def sweep(self) -> None:
        """Cancel what visitors left behind who have closed every page."""
        import_once()
        for line in (self.line, self.loads):
            for job in line.active():
                away = self.presence.away(job.owner, job.asked)
                if job.owner.kind != "server" and away > self.settings.limits.away and not job.cancelled:
                    line.cancel(job.owner, job.id)
        self.presence.forget(PARTED)
        for look_after in self.on_sweep:
            try:
                look_after()
            except Exception:  # the next time may go well, and the others are looked after
                logger.exception("looking after the page's work failed")

    def check_loaded(self) -> None:
        """Raises InputError where the base is still loading, or could not be loaded: nothing else would be true."""
        if self._engine is None and self.state.kind == "loading":
            raise InputError("the base is still loading; ask again in a moment")
        if self._engine is None:
            raise InputError(f"no base is loaded: {self.state.message or 'none was asked for'}; choose another base")

    def _ready(self) -> Engine:
        self.check_loaded()
        assert self._engine is not None
        compute_on_all_cores()
        self._engine.unpark()
        return self._engine

    def _load(self, base: str) -> None:
        """In the thread of the loads: the first import of torch and diffusers happens here."""
        before = self.state if self._engine else None
        self.state = replace(before, next=base) if before else BaseState("loading", base)
        try:
            import_once()
            loaded = Engine.load(base)
            self.line.submit(SERVER, lambda _: self._take(loaded)).wait()
        except Exception as error:
            self.state = before or BaseState("failed", base, str(error).splitlines()[0] if str(error) else repr(error))
            if not isinstance(error, InputError):
                logger.exception("base %s could not be loaded", base)
            raise
        self.state = BaseState("ready", base)

    def _take(self, loaded: Engine) -> None:
        """In the thread of the pictures: the GPU holds one base at a time."""
        before, self._engine = self._engine, None
        if before is not None:
            before.park()
        try:
            loaded.unpark()
        except Exception:
            self._engine = before
            raise
        self._engine = loaded
        del before
        engine.free_memory()

    def _check(self, request: Request) -> None:
        limits, config = self.settings.limits, request.config
        sides = (config.width or self.size[0], config.height or self.size[1])
        prompts = [config.prompt, config.negative_prompt, *(region.prompt for region in config.regions)]
        asked = {
            "pictures": (request.pictures, limits.pictures),
            "steps": (config.num_inference_steps, limits.steps),
            "pixels on an edge": (round(max(*sides) * config.upscale), limits.edge),
            "regions": (len(config.regions), limits.regions),
            "characters in a prompt": (max(map(len, prompts)), limits.prompt),
        }
        for what, (value, limit) in asked.items():
            if value > limit:
                raise InputError(f"{value} {what} are more than the {limit} that this page allows; ask for less")
        steps = max((value for axis in request.axes if axis.setting == "steps" for value in axis.values), default=0)
        if steps > limits.steps:
            raise InputError(
                f"grid: {steps} steps are more than the {limits.steps} that this page allows; ask for less"
            )
        request.rows()  # a value of a grid that cannot be used is refused now, not when its turn comes

    def _checked_control(self, control: ControlAsked | None) -> ControlAsked | None:
        """With the path of the ControlNet. Raises InputError, which begins with the field."""
        if control is None:
            return None
        try:
            model = self.models.check(control.model)
        except InputError as error:
            raise InputError(f"control: {error}") from error
        if Path(model).is_absolute() and not Path(model).is_dir():
            raise InputError(f"ControlNet {control.model!r} does not exist; choose one of the list, or give a hub id")
        return control._replace(model=model)

    def _draw(self, engine_: Engine, job: Job, request: Request) -> list[Path]:
        def find(name: str) -> Concept | LoraFile:
            if name in request.loras:
                loras = self.loras
                return engine_.subjects.get(loras.find(name), lambda: loras.get(name, engine_.shapes))
            library = self.library
            return engine_.subjects.get(library.find(name), lambda: library.get(name))

        return Drawing(engine_, job, request, self.history, self.settings.limits).run(find)


def device_and_memory() -> str:
    """Where pictures are made and how much memory that takes now: `CPU · 1.2 of 24 GB`."""
    name, used, total = engine.device_and_memory()
    return f"{name} · {used / 1e9:.1f} of {total / 1e9:.0f} GB"
