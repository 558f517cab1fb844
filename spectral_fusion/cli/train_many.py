"""`spectral-fusion train-many`. Its flags are those of `train`, for all concepts, but for what each has of its own."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from spectral_fusion.cli.command import ConfigFile, read_toml, refuse_unknown
from spectral_fusion.cli.select import LibraryFolder
from spectral_fusion.cli.tables import plain_table
from spectral_fusion.cli.train import STOPPING, build_config, with_config_flags
from spectral_fusion.errors import InputError, shown
from spectral_fusion.training.config import settings

if TYPE_CHECKING:
    from spectral_fusion.training.many.plan import Request
    from spectral_fusion.training.many.run import News

OWN = ("name", "trigger", "band")  # of each concept: in a manifest, not as flags
CONCEPTS = "concept"
LARGEST = 2**24  # bytes of a manifest
LINES = 10  # about the progress of one concept, where there is no terminal


@partial(with_config_flags, without=OWN)
def train_many(
    images: Annotated[
        list[Path], typer.Argument(help="Folders of pictures, one a concept, or one manifest that ends in .toml.")
    ],
    library: LibraryFolder = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many train at once. Default: one a GPU, or 1.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Train on a Ray cluster: host:port, ray://host:port, or auto.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads of each worker; the figures depend on their number.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace concepts; their files go to the trash.")] = False,
    config: ConfigFile = None,
    **given: Any,
) -> None:
    """Train many concepts for one another, into the library; started again, go on.

    Each folder becomes a concept of the folder's name. A manifest names them, and gives some their own settings, as
    `train` has them; all others are as the flags say:

    [[concept]]
    images = "photos/rex"    # from the manifest's folder on
    name = "rex"             # without: the folder's name
    class = "dog"

    The files are byte for byte the same with any number of workers, and after any interruption.
    """
    from spectral_fusion.concept import Library
    from spectral_fusion.training.many.job import Where, train_many

    chosen = {name: value for name, value in given.items() if value is not None}
    requests = read_requests(images, chosen)
    console = Console(stderr=True)
    for request in requests:
        for warning in request.images.warnings:
            console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    before = {number: signal.signal(number, _interrupt) for number in STOPPING}
    try:
        with Board([request.config.name for request in requests], console) as board:
            outcome = train_many(
                requests, library=Library(library), where=Where(workers, ray, threads), force=force, on_news=board.show
            )
    except KeyboardInterrupt:
        typer.echo("go on with the same command", err=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for name in outcome.done:
        typer.echo(Library(library).path(name))
    if outcome.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in outcome.failed.items())
        raise InputError(f"{len(outcome.failed)} of {len(requests)} are not trained. {reasons}")


def read_requests(paths: list[Path], given: dict[str, Any]) -> "list[Request]":
    """What the command line asks for; raises InputError where a folder or a setting cannot be used."""
    manifests = [path for path in paths if path.suffix.lower() == ".toml"]
    if manifests and len(paths) > 1:
        raise InputError(f"{manifests[0]} is a manifest; give it alone, or folders alone")
    entries = read_manifest(manifests[0]) if manifests else [{"images": path} for path in paths]
    return [_request(entry, given) for entry in entries]


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The settings of each concept that a manifest lists, and its `images`.

    Raises:
        InputError: it is no TOML, lists no concepts, or one without `images` or with an unknown setting.
    """
    record = read_toml(path, "manifest", largest=LARGEST)
    refuse_unknown(record, [CONCEPTS], f"manifest {path}")
    listed = record.get(CONCEPTS)
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"manifest {path} lists no concepts; begin each with a line [[{CONCEPTS}]]")
    spelt = {(item.flag or name).lstrip("-").replace("-", "_"): name for name, item in settings().items()}
    spelt |= {name: name for name in settings()} | {"images": "images"}
    entries = []
    for number, entry in enumerate(listed, 1):
        where = f"manifest {path}, concept {number},"
        named = {key.replace("-", "_"): value for key, value in entry.items()}
        refuse_unknown(named, [*spelt], where)
        images = named.get("images")
        if not isinstance(images, str) or not images:
            raise InputError(f'{where} has images = {shown(images)}; give a folder: images = "photos/rex"')
        entries.append({spelt[key]: value for key, value in named.items()} | {"images": path.parent / images})
    return entries


def _request(entry: dict[str, Any], given: dict[str, Any]) -> "Request":
    from spectral_fusion.concept.images import ImageFolder
    from spectral_fusion.training.many.plan import Request

    path = entry["images"]
    chosen = given | {name: value for name, value in entry.items() if name != "images"}
    chosen.setdefault("name", Path(os.path.realpath(path)).name)
    folder = ImageFolder.scan(path, background=chosen.get("background", "white"), class_word=chosen.get("class_word"))
    try:
        return Request(folder, build_config(chosen, folder))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Board:
    """How all concepts stand: one table on a terminal, else a line where one begins, moves on by a tenth, or ends."""

    def __init__(self, names: list[str], console: Console):
        self.console, self.news = console, dict[str, "News"]()
        self.names, self.told = names, dict[str, str]()
        self.live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=False)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        if self.live.is_started:
            self.live.stop()

    def show(self, news: "News") -> None:
        """Show what is new about one concept."""
        self.news[news.name] = news
        if self.console.is_terminal:
            self.live.start()  # now: what is wrong with the input is said on a clean line
            return
        key = f"{news.state} {news.note} {news.step * LINES // max(1, news.steps)}"
        if self.told.get(news.name) != key:
            self.told[news.name] = key
            self.console.print(" ".join(_cells(news)), markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = plain_table("concept", "", "steps", "loss", "worker", "")
        for name in self.names:
            if news := self.news.get(name):
                table.add_row(*map(escape, _cells(news)))
        return table


def _cells(news: "News") -> tuple[str, ...]:
    loss = "" if news.loss is None else f"loss {news.loss:.4f}"
    worker = "" if news.worker is None else f"worker {news.worker}"
    return news.name, news.state, f"{news.step}/{news.steps}", loss, worker, news.note
