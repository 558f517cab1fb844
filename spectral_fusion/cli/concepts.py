"""`spectral-fusion concepts`: the library."""

import json
import shlex
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from spectral_fusion.cli.inspect import inspect
from spectral_fusion.cli.select import LibraryFolder
from spectral_fusion.cli.tables import band_map, concept_table, room, wide_console
from spectral_fusion.errors import printable

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo

Name = Annotated[str, typer.Argument(help="Name of a concept in the library.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

app = typer.Typer(help="List, add, remove, restore, rename and check the concepts of a library.")


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
    stock = shelf.stock()
    found = sorted(stock.concepts, key=lambda info: (info.base_name, info.base, info.band.side, info.band.index))
    if as_json:
        typer.echo(json.dumps([_record(info) for info in found], indent=2))
        return
    console = wide_console()
    if not found:
        console.print(f"No concepts in {escape(str(shelf.root))} yet.", highlight=False)
        console.print("Train one: spectral-fusion train IMAGES --name rex --class dog")
    for base, members in groupby(sorted(found, key=lambda info: info.base), key=lambda info: info.base):
        _print_base(console, base, list(members))
    for name, claim in stock.claims:
        console.print(
            f"in training: {name}, {claim.trigger}, {claim.band.label} of rank {claim.band.rank}", style="dim"
        )
    for bad in (*stock.unreadable, *stock.broken_claims):
        line = f"cannot be used: {printable(bad.name)}: {bad.reason}"
        console.print(line, style="red", markup=False, highlight=False)


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
    for other in shelf.sharing(info):
        typer.echo(f"note: {info.name} and {other} share a band, so these two cannot be fused together")


@app.command("remove")
def remove(name: Name, library: LibraryFolder = None) -> None:
    """Take a concept out of the library; `restore` brings it back."""
    from spectral_fusion.concept import Library

    path = Library(library).remove(name)
    where = f" --library {shlex.quote(str(library))}" if library else ""
    typer.echo(f"removed {name}; it lies in {path}. Undo: spectral-fusion concepts restore {name}{where}")


@app.command("restore")
def restore(
    name: Name,
    at: Annotated[str | None, typer.Option(help="When it went to the trash, as `trash` lists. Default: last.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Put the concept that has the name now into the trash.")
    ] = False,
    library: LibraryFolder = None,
) -> None:
    """Bring back a concept that was removed, or a file that another one replaced."""
    from spectral_fusion.concept import Library

    info = Library(library).restore(name, at=at, force=force)
    typer.echo(f"restored {info.name}: write {info.trigger} in a prompt")


@app.command("trash")
def trash(library: LibraryFolder = None, as_json: AsJson = False) -> None:
    """List what was removed or replaced, the last first."""
    from spectral_fusion.concept import Library

    entries = Library(library).trash()
    if as_json:
        record = [{"name": entry.name, "at": entry.stamp, "path": str(entry.path)} for entry in entries]
        typer.echo(json.dumps(record, indent=2))
        return
    for entry in entries:
        kind = "concept" if entry.has_concept else "stopped training" if entry.has_claim else "no concept"
        typer.echo(printable(f"{entry.name}  --at {entry.stamp}  {kind}  {entry.path}"))
    if not entries:
        typer.echo("the trash is empty")


@app.command("rename")
def rename(
    name: Name,
    to: Annotated[str, typer.Argument(help="The new name, or the new trigger in angle brackets: '<rex>'.")],
    library: LibraryFolder = None,
) -> None:
    """Give a concept another name, or another trigger."""
    from spectral_fusion.concept import Library

    info = Library(library).rename(name, to)
    typer.echo(f"{info.name}: write {info.trigger} in a prompt from now on")


@app.command("check")
def check(library: LibraryFolder = None, as_json: AsJson = False) -> None:
    """Look through the library: mend what killed processes left, say what else is wrong (exit code 1)."""
    from spectral_fusion.concept import Library

    findings = Library(library).check()
    if as_json:
        typer.echo(json.dumps([{"path": str(f.path), "what": f.what, "done": f.done} for f in findings], indent=2))
    else:
        for finding in findings:
            line = f"{finding.path}: {finding.what}"
            typer.echo(printable(f"mended  {line}: {finding.done}" if finding.done else f"wrong   {line}"))
        if not findings:
            typer.echo("all is well")
    if any(not finding.done for finding in findings):
        raise typer.Exit(1)


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
