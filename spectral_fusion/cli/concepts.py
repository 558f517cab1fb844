"""`spectral-fusion concepts`: the library."""

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from spectral_fusion.cli.inspect import inspect
from spectral_fusion.cli.select import LibraryFolder
from spectral_fusion.cli.tables import band_map, concept_table, room

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo

Name = Annotated[str, typer.Argument(help="Name of a concept in the library.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

app = typer.Typer(help="List, add, remove and rename the concepts of a library.")


@app.callback(invoke_without_command=True)
def start(context: typer.Context, library: LibraryFolder = None, as_json: AsJson = False) -> None:
    """The library of concepts. Without a command: list."""
    if library:  # before the command it counts too
        context.default_map = {str(command.name): {"library": library} for command in app.registered_commands}
    if context.invoked_subcommand is None:
        list_concepts(library, as_json)


@app.command("list")
def list_concepts(library: LibraryFolder = None, as_json: AsJson = False) -> None:
    """List concepts, with a map of the bands that they own on each base."""
    from spectral_fusion.concept import Library

    shelf = Library(library)
    found = sorted(shelf.list(), key=lambda info: (info.base_name, info.base, info.span.start))
    if as_json:
        typer.echo(json.dumps([_record(info) for info in found], indent=2))
        return
    console = Console()
    if not found:
        console.print(f"No concepts in {shelf.root} yet.")
        console.print("Train one: spectral-fusion train IMAGES --name rex --class dog")
    for base, members in groupby(found, key=lambda info: info.base):
        _print_base(console, base, list(members))


@app.command("show")
def show(name: Name, library: LibraryFolder = None, as_json: AsJson = False) -> None:
    """Say everything about one concept."""
    inspect(name, library, as_json=as_json)


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A concept file, or the folder of a concept.")],
    name: Annotated[str | None, typer.Option(help="Call it so here. Default: as the file says.")] = None,
    trigger: Annotated[str | None, typer.Option(help="Give it this trigger. Default: as the file says.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the concept of that name.")] = False,
    library: LibraryFolder = None,
) -> None:
    """Copy a concept file into the library."""
    from spectral_fusion.concept import Library

    shelf = Library(library)
    info = shelf.add(file, name=name, trigger=trigger, force=force)
    typer.echo(f"added {info.name}: write {info.trigger} in a prompt")
    for other in shelf.list():
        if other.name != info.name and other.base == info.base and other.may_share_band(info):
            typer.echo(f"note: {info.name} and {other.name} share a band, so these two cannot be fused together")


@app.command("remove")
def remove(name: Name, library: LibraryFolder = None) -> None:
    """Take a concept out of the library; `restore` brings it back."""
    from spectral_fusion.concept import Library

    path = Library(library).remove(name)
    typer.echo(f"removed {name}; it lies in {path}. Undo: spectral-fusion concepts restore {name}")


@app.command("restore")
def restore(name: Name, library: LibraryFolder = None) -> None:
    """Bring back the concept that was removed last under this name."""
    from spectral_fusion.concept import Library

    info = Library(library).restore(name)
    typer.echo(f"restored {info.name}: write {info.trigger} in a prompt")


@app.command("rename")
def rename(
    name: Name,
    trigger: Annotated[str, typer.Argument(help="The new trigger, such as '<rex>'.")],
    library: LibraryFolder = None,
) -> None:
    """Give a concept another trigger."""
    from spectral_fusion.concept import Library

    info = Library(library).rename(name, trigger)
    typer.echo(f"{info.name}: write {info.trigger} in a prompt from now on")


def _print_base(console: Console, base: str, members: "list[ConceptInfo]") -> None:
    from spectral_fusion.concept.claim import room_left

    rank, directions = members[0].band.rank, min(info.directions for info in members)
    console.print(f"[bold]Base {escape(members[0].base_name) or 'without a name'}[/bold] [dim]{base}")
    console.print(concept_table(members))
    console.print(band_map(members))
    console.print(room(room_left([info.band for info in members], rank, directions), rank), style="dim")
    console.print()


def _record(info: "ConceptInfo") -> dict[str, Any]:
    keys = ("name", "trigger", "class_word", "mode", "base", "base_name", "directions")
    band = {"band": info.band.index, "side": info.band.side, "rank": info.band.rank}
    return {key: getattr(info, key) for key in keys} | band
