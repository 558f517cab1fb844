"""`spectral-fusion concepts`: the library."""

import json
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from spectral_fusion.cli.inspect import inspect
from spectral_fusion.cli.select import LibraryFolder, select_concepts
from spectral_fusion.cli.tables import band_map, capacity_line, concept_lines, room, wide_console
from spectral_fusion.errors import printable

if TYPE_CHECKING:
    from spectral_fusion.concept import ConceptInfo
    from spectral_fusion.concept.holdings import Holdings

USUAL_RANKS = (4, 8, 16)
Name = Annotated[str, typer.Argument(help="Name of a concept in the library.")]
Tags = Annotated[list[str], typer.Argument(help="One or more; quotes round one of several words.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

app = typer.Typer(help="List, find, tag, add, remove, restore, rename and check the concepts of a library.")


@app.callback(invoke_without_command=True)
def start(context: typer.Context, library: LibraryFolder = None, as_json: AsJson = False) -> None:
    """The library of concepts. Without a command: list."""
    if library:  # before the command it counts too
        context.default_map = {str(command.name): {"library": library} for command in app.registered_commands}
    if context.invoked_subcommand is None:
        list_concepts(library, as_json, "", None)


@app.command("list")
def list_concepts(
    library: LibraryFolder = None,
    as_json: AsJson = False,
    search: Annotated[str, typer.Option(help="Only those that say these words: name, class, base or tag.")] = "",
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
) -> None:
    """List concepts, with a map of the bands that they own on each base, and what room is left there."""
    from spectral_fusion.concept import Library

    shelf = Library(library)
    stock = shelf.stock()
    chosen = stock.search(search, tag)
    found = sorted(chosen, key=lambda info: (info.base_name, info.base, info.band.side, info.band.index))
    if as_json:
        typer.echo(json.dumps([_record(info, stock.tags.get(info.name, ())) for info in found], indent=2))
        return
    console = wide_console()
    if stock.concepts and not found:
        console.print(f"None of the {len(stock.concepts)} concepts in {escape(str(shelf.root))} says so.")
        return
    if not found:
        console.print(f"No concepts in {escape(str(shelf.root))} yet.", highlight=False)
        console.print("Train one: spectral-fusion train IMAGES --name rex --class dog")
    for base, members in groupby(sorted(found, key=lambda info: info.base), key=lambda info: info.base):
        _print_base(console, base, list(members), stock)
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


@app.command("tag")
def tag(name: Name, tags: Tags, library: LibraryFolder = None) -> None:
    """Give a concept tags, to find it by; `untag` takes them away."""
    from spectral_fusion.concept import Library

    shelf = Library(library)
    shelf.note(name, shelf.notes(name).tagged(tags))
    typer.echo(f"tags of {name}: {', '.join(shelf.notes(name).tags)}")


@app.command("untag")
def untag(name: Name, tags: Tags, library: LibraryFolder = None) -> None:
    """Take tags away from a concept."""
    from spectral_fusion.concept import Library

    shelf = Library(library)
    shelf.note(name, shelf.notes(name).untagged(tags))
    typer.echo(f"tags of {name}: {', '.join(shelf.notes(name).tags) or 'none'}")


@app.command("overlaps")
def overlaps(
    concept: Annotated[str, typer.Argument(help="A concept file, its folder, or a name of the library.")],
    library: LibraryFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say with which concepts of the library one shares directions, and how much; all others are apart from it."""
    from spectral_fusion.concept import Library
    from spectral_fusion.concept.overlaps import library_overlaps

    (one,) = select_concepts([concept], library=library)
    shelf = Library(library)
    stock = shelf.stock()
    found = library_overlaps(one, shelf, stock)
    others = sum(info.base == one.base and info.name != one.name for info in stock.concepts)
    if as_json:
        measured = [{"name": overlap.second, "overlap": overlap.value, "layer": overlap.layer} for overlap in found]
        typer.echo(json.dumps({"concepts": others, "measured": measured}, indent=2))
        return
    for overlap in found:
        typer.echo(f"{overlap.value:.4f}  {overlap.second}  {overlap.layer}")
    typer.echo(f"{one.name} shares directions with {len(found)} of {others} concepts of its base, {one.band}")


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


def _print_base(console: Console, base: str, members: "list[ConceptInfo]", stock: "Holdings") -> None:
    """members: those to list; the map and the room are those of all that the base has."""
    from spectral_fusion.concept.claim import capacity, room_left

    owners = [info for info in stock.concepts if info.base == base]
    taken, directions = [band for _, band in stock.bands(base)], min(info.directions for info in owners)
    rank = members[0].band.rank
    console.print(f"[bold]Base {escape(members[0].base_name) or 'without a name'}[/bold] [dim]{base}")
    typer.echo(concept_lines(members, stock.tags))
    console.print(band_map(owners))
    console.print(room(room_left(taken, rank, directions), rank), style="dim")
    ranks = sorted({info.band.rank for info in owners} | {rank for rank in USUAL_RANKS if rank <= directions})
    console.print(capacity_line(capacity(taken, ranks, directions)), style="dim", highlight=False)
    console.print()


def _record(info: "ConceptInfo", tags: Sequence[str]) -> dict[str, Any]:
    keys = ("name", "trigger", "class_word", "mode", "base", "base_name", "directions")
    band = {"band": info.band.index, "side": info.band.side, "rank": info.band.rank}
    return {key: getattr(info, key) for key in keys} | band | {"tags": list(tags)}
