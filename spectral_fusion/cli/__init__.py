"""The command line: `spectral-fusion <verb>`, one module a verb.

Only argument parsing is imported here; a verb imports torch when it runs, so `--help` answers at once.
"""

import io
import os
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spectral_fusion import __version__
from spectral_fusion.atomic import mend_unfinished
from spectral_fusion.cli import app as page
from spectral_fusion.cli import concepts, demo, evaluate, export, fuse, generate, inspect, memory, train, train_many
from spectral_fusion.cli.command import Command
from spectral_fusion.errors import InputError, printable

# To add a verb: its module above, its function here. The function's docstring is the help text.
VERBS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "train-many": train_many.train_many,
    "memory": memory.memory,
    "fuse": fuse.fuse,
    "generate": generate.generate,
    "evaluate": evaluate.evaluate,
    "demo": demo.demo,
    "inspect": inspect.inspect,
    "export": export.export,
    "app": page.app,
}
GROUPS = {"concepts": concepts.app}
NO_MEMORY = re.compile(r"out of memory|(can't|cannot|not enough|failed to) (allocate )?memory", re.IGNORECASE)


class Group(TyperGroup):
    """Turns what a user can mend into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            refuse_empty_paths(self, [*ctx._protected_args, *ctx.args])
            tell_of_leftovers()
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe had enough, such as `head`
        except (InputError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
                raise
            if ctx.params["debug"]:
                raise
            typer.echo(f"error: {error_line(error)}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


def tell_of_leftovers() -> None:
    """Finish or undo what a killed process of this user was writing, anywhere, and say so."""
    outcomes = {
        "finished": "it is there whole",
        "put back": "what it was to replace is back",
        "deleted": "what was half-written is deleted",
    }
    for leftover in mend_unfinished():
        line = f"note: a process was killed while it wrote {leftover.target}; {outcomes[leftover.outcome]}"
        typer.echo(printable(line), err=True)


def refuse_empty_paths(group: TyperGroup, args: list[str]) -> None:
    """Raises InputError where a flag that takes a path was given an empty text, which would mean the present folder.

    That is what a shell makes of a variable that is not set: `--library "$LIBRARY"`.
    """
    if "" not in args:
        return
    commands, options = [*group.commands.values()], []
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        options += command.params
    paths = [option for option in options if getattr(option, "type_descriptor", None) and _is_path(option)]
    flags = {flag for option in paths for flag in option.opts if flag.startswith("-")}
    for before, value in pairwise(args):
        if value == "" and before in flags:
            raise InputError(f"{before} is empty; give a path, or leave the flag out")


def _is_path(option: Any) -> bool:
    return getattr(option.type_descriptor, "annotation", None) is Path


def error_line(error: Exception) -> str:
    """The one line for a user: an OSError as reason and file, without its number."""
    if isinstance(error, (MemoryError, RuntimeError)):
        return (
            "there is not enough memory for this; ask for smaller pictures, a smaller batch or rank, or close programs"
        )
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
    return printable(str(error))


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spectral-fusion {__version__}")
        raise typer.Exit


def start(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train one small spectral adapter per subject, fuse any of them by a sum, generate pictures."""


def build_app() -> typer.Typer:
    app = typer.Typer(
        cls=Group,
        callback=start,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, function in VERBS.items():
        app.command(name, cls=Command)(function)
    for name, group in GROUPS.items():
        app.add_typer(group, name=name)
    return app


app = build_app()


def main() -> None:
    """Entry point of the console script and of `python -m spectral_fusion`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it reports packages that are not needed here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files that are no text
    app(prog_name="spectral-fusion")
