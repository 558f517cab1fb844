"""The command line: `spectral-fusion <verb>`, one module a verb.

Only argument parsing is imported here; a verb imports torch when it runs, so `--help` answers at once.
"""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spectral_fusion import __version__
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


class Group(TyperGroup):
    """Turns what a user can mend into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe had enough, such as `head`
        except (InputError, OSError) as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"error: {error_line(error)}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


def error_line(error: InputError | OSError) -> str:
    """The one line for a user: an OSError as reason and file, without its number."""
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
    app(prog_name="spectral-fusion")
