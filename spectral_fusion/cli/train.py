"""`spectral-fusion train`. Its flags are the fields of `TrainConfig`."""

import inspect
import logging
import shlex
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn

from spectral_fusion.base.presets import FULL_SIZE, MINIATURE
from spectral_fusion.cli.command import ConfigFile
from spectral_fusion.cli.progress import Stages, StepBar, heard
from spectral_fusion.cli.select import LibraryFolder
from spectral_fusion.errors import InputError, printable
from spectral_fusion.journal import Journal
from spectral_fusion.names import check_name
from spectral_fusion.training.config import ResolvedConfig, TrainConfig, settings

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo, Library
    from spectral_fusion.concept.images import ImageFolder
    from spectral_fusion.training import Progress

STOPPING = (signal.SIGINT, signal.SIGTERM)
SMOOTHING = 0.95  # of the loss in the progress bar: one step's depends mostly on its timesteps


def with_config_flags(function: Callable[..., None], without: Collection[str] = ()) -> Callable[..., None]:
    """Give Typer, which reads signatures, an option for each field of `TrainConfig` in place of `**given`.

    All are None unless given, so that flags, a settings file and a checkpoint can override one another.

    Args:
        without: fields that get none.
    """
    signature = inspect.signature(function, eval_str=True)
    *own, _ = signature.parameters.values()
    hints = get_type_hints(ResolvedConfig)
    options = [_option(name, hint) for name, hint in hints.items() if name not in without]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


def _option(name: str, hint: Any) -> inspect.Parameter:
    """A field as the parser takes it: a tuple comes as a list, a number or a word as text."""
    item, default = settings()[name], inspect.signature(TrainConfig).parameters[name].default
    kind = {tuple[str, ...]: list[str], int | Literal["auto"]: str}.get(hint, hint)
    option = typer.Option(
        *([item.flag] if item.flag else []),
        help=item.help,
        rich_help_panel=item.panel,
        show_default=_shown(name, default),
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _shown(name: str, default: Any) -> str | bool:
    """The default as `--help` shows it; the small base's beside the full-size one's where they differ."""
    if name in FULL_SIZE:
        full, small = _listed(FULL_SIZE[name]), _listed(MINIATURE[name])
        return full if full == small else f"{full}, toybox128 {small}"
    return False if default in (None, (), inspect.Parameter.empty) else _listed(default)


def _listed(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


@with_config_flags
def train(
    images: Annotated[
        Path, typer.Argument(help="Folder of pictures of one subject, or a dataset file of kohya's scripts.")
    ],
    library: LibraryFolder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was stopped, or, with more --steps, is done.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a concept; its file goes to the trash.")] = False,
    logs: Annotated[bool, typer.Option(help="Write TensorBoard logs, where it is installed.")] = True,
    journal: Annotated[Path | None, typer.Option(help="Write a JSON line a step here, for other programs.")] = None,
    config: ConfigFile = None,
    band_order: Annotated[str | None, typer.Option(hidden=True)] = None,
    **given: Any,
) -> None:
    """Train a concept from a folder of pictures, into the library."""
    if band_order is not None:
        raise InputError(f"--band-order {band_order} is called --band-side {band_order} now; give that")
    from spectral_fusion.training.processes import is_main

    with Journal(journal, append=resume) if journal and is_main() else nullcontext() as book:
        _train(images, library, resume=resume, force=force, logs=logs, journal=book, given=given)


def _train(
    images: Path,
    library: Path | None,
    *,
    resume: bool,
    force: bool,
    logs: bool,
    journal: Journal | None,
    given: dict[str, Any],
) -> None:
    from spectral_fusion.concept import Library
    from spectral_fusion.training import train_concept
    from spectral_fusion.training.folder import finished_settings, stopped_settings

    shelf = Library(library)
    chosen = {name: value for name, value in given.items() if value is not None}
    if "name" not in chosen:
        raise InputError("the concept has no name; give --name rex")
    if resume:
        name = chosen["name"]
        chosen = (stopped_settings(shelf, name) or finished_settings(shelf, name) or {}) | chosen
    folder, chosen = read_images(images, chosen)
    settings = build_config(chosen, folder)
    check_name(settings.name)  # before anything is said
    with _Watcher(shelf, settings.name, folder, logs=logs, journal=journal) as watcher:
        watcher.predict_memory(settings)
        concept = train_concept(folder, settings, library=shelf, resume=resume, force=force, on_progress=watcher)
        where = ["--base", settings.base] if settings.base != TrainConfig.base else []
        watcher.finish(concept, [*where, *(["--library", str(library)] if library else [])])


def read_images(images: Path, chosen: dict[str, Any]) -> tuple["ImageFolder", dict[str, Any]]:
    """The pictures, and the settings with those of a dataset file where none was given."""
    from spectral_fusion.concept.images import ImageFolder
    from spectral_fusion.concept.images.dataset import ENDINGS, read_dataset

    background, class_word = chosen.get("background", "white"), chosen.get("class_word")
    if images.suffix.lower() not in ENDINGS or images.is_dir():
        return ImageFolder.scan(images, background=background, class_word=class_word), chosen
    dataset = read_dataset(images, background=background, class_word=class_word)
    return dataset.images, dataset.settings | chosen


def build_config(chosen: dict[str, Any], folder: "ImageFolder") -> TrainConfig:
    """Settings from what was given; the class word may come from the name of a kohya folder."""
    chosen = {"class_word": folder.class_word} | chosen
    if chosen["class_word"] is None:
        raise InputError("the subject has no class; give --class dog, a word that the base knows for it")
    return TrainConfig(**chosen)


class _Watcher:
    """Shows progress on the terminal, in TensorBoard and in a journal.

    Ctrl-C, or SIGTERM, becomes a stop between two steps, and at once before the first.
    """

    def __init__(
        self, library: "Library", name: str, folder: "ImageFolder", *, logs: bool, journal: Journal | None = None
    ):
        from spectral_fusion.training.processes import is_main

        self.library, self.name, self.folder, self.logs, self.journal = library, name, folder, logs, journal
        self.main = is_main()
        self.console = Console(stderr=True, quiet=not self.main)
        self.bar = StepBar(self.console, name, *_columns())
        self.stages = Stages(self.console)
        self.listening = ExitStack()
        self.writer: Any = None
        self.loss: float | None = None
        self.counting = False
        self.stop = False

    def __enter__(self) -> "_Watcher":
        for warning in self.folder.warnings:
            self._warn(warning)
        self.listening.enter_context(heard("spectral_fusion", logging.INFO, self._hear))
        self.before = {number: signal.signal(number, self._on_signal) for number in STOPPING}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()
        self.listening.close()
        self.stages.stop()
        self.bar.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt and self.main:
            again = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--force")]
            line = shlex.join(["spectral-fusion", *again, "--resume"])
            self.console.print(f"go on with: {line}", markup=False, highlight=False, soft_wrap=True)

    def predict_memory(self, config: TrainConfig) -> None:
        """Say what the training will take; a bundled base fits anywhere."""
        from spectral_fusion.base.bundled import BUNDLED
        from spectral_fusion.cli.forecast import warn_of_memory

        if self.main and config.base not in BUNDLED:
            others = config.with_concepts not in ((), ("none",)) and any(
                info.name != self.name and _of_base(info, config.base) for info in self.library.list()
            )
            warn_of_memory(self.console, config, others=others)

    def __call__(self, progress: "Progress") -> None:
        self.stages.stop()
        self.bar.start()  # now: what is wrong with the input is said on a clean line
        self.counting = progress.step < progress.steps and not progress.is_over
        self.loss = progress.loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * progress.loss
        line = f"step {progress.step} of {progress.steps}"
        self.bar.update(progress.step, progress.steps, line, f"loss {self.loss:.4f}")
        if progress.probe_loss is not None:
            self.console.print(f"step {progress.step}: loss on fixed noise {progress.probe_loss:.4f}", highlight=False)
        if progress.is_over and progress.step < progress.steps:
            said = f"step {progress.step}: the loss on fixed noise no longer falls, so the training ends here"
            self.console.print(said, highlight=False)
        self._log(progress)
        if self.journal is not None:
            self.journal.write(
                step=progress.step,
                steps=progress.steps,
                loss=progress.loss,
                probe_loss=progress.probe_loss,
                samples=progress.samples is not None,
                likeness=progress.likeness,
            )
        if self.stop:
            raise KeyboardInterrupt

    def finish(self, info: "ConceptInfo", where: list[str]) -> None:
        """Say where the concept is and how to use it. `where`: the options that name its base and library."""
        if self.main:
            path = self.library.path(self.name)
            typer.echo(f"{path}: {info.trigger}, {info.band}")
            prompt = f"a photo of a {info.trigger} {info.class_word}"
            line = ["spectral-fusion", "generate", prompt, "--concepts", self.name, *where]
            typer.echo(f"try: {shlex.join(line)}")

    def _hear(self, record: logging.LogRecord) -> None:
        """What the job logs: what it warns of, and what it does before its first step and after its last."""
        if record.levelno >= logging.WARNING:
            self._warn(record.getMessage())
        elif not self.counting:
            self.stages(f"{self.name}: {printable(record.getMessage())}", live=self.loss is None)

    def _warn(self, text: str) -> None:
        line = printable(f"warning: {text}")
        self.console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _log(self, progress: "Progress") -> None:
        if not self.logs or not self.main:
            return
        if self.writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.logs = False
                return
            self.writer = SummaryWriter(self.library.folder(self.name) / "training" / "logs", purge_step=progress.step)
        scalars = {"loss": progress.loss, "probe_loss": progress.probe_loss, "likeness": progress.likeness}
        scalars |= {f"learning_rate/{part}": rate for part, rate in progress.learning_rates.items()}
        for name, value in scalars.items():
            if value is not None:
                self.writer.add_scalar(name, value, progress.step)
        if progress.samples is not None:
            from numpy import asarray

            self.writer.add_image("samples", asarray(progress.samples), progress.step, dataformats="HWC")

    def _on_signal(self, *_: object) -> None:
        if self.stop or self.loss is None:
            raise KeyboardInterrupt  # nothing done yet; or the second time, which goes back to the last checkpoint
        self.stop = True
        self.console.print("stopping after this step; Ctrl-C again stops at once", highlight=False)


def _of_base(info: "ConceptInfo", base: str) -> bool:
    """Whether a concept was trained on a base of this name, as far as that tells; a file keeps its last part alone."""
    return info.base_name in (base, Path(base).name)


def _columns() -> tuple[ProgressColumn, ...]:
    counted = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    return (*counted, TimeRemainingColumn())
