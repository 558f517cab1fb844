"""What all verbs share: flags that take several values, and settings from a TOML file.

A verb uses them by its annotations alone: every `list` option takes several values after one flag, and a parameter
`config: ConfigFile = None` adds `--config FILE.toml`.
"""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from spectral_fusion.errors import InputError, shown


class Command(TyperCommand):
    """A verb whose list options take several values: `--concepts rex tom` means `--concepts rex --concepts tom`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = {flag for parameter in self.params if getattr(parameter, "multiple", False) for flag in parameter.opts}
        return super().parse_args(ctx, repeat_flags(args, flags))


def repeat_flags(args: list[str], flags: set[str]) -> list[str]:
    """Write the flag again before each further value, as the parser wants it. A number may begin with a minus."""
    repeated: list[str] = []
    flag: str | None = None
    first = True
    for position, argument in enumerate(args):
        if argument == "--":
            return repeated + args[position:]
        if argument.startswith("-") and not is_number(argument):
            flag, first = (argument if argument in flags else None), True
        elif flag is not None:
            if not first:
                repeated.append(flag)
            first = False
        repeated.append(argument)
    return repeated


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_config_file(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the file's settings the defaults of the verb, so that a flag on the command line overrides them."""
    if path is None or ctx.resilient_parsing:
        return path
    options = [p for p in ctx.command.params if p.name not in (None, "config", "help")]
    named = {key(flag): p for p in options for flag in (p.name, *p.opts)}
    defaults: dict[str, Any] = {}
    for name, value in parse_config(path, list(named)).items():
        option, many = named[name], getattr(named[name], "multiple", False)
        if isinstance(value, dict) or (isinstance(value, list) and not many):
            raise InputError(f"settings file {path} has {name} = {shown(value)}; give one value")
        # As text, as a flag gives it, so that the parser checks its type: int(2.5) would be 2.
        defaults[option.name] = [str(v) for v in (value if isinstance(value, list) else [value])]
        if not many:
            (defaults[option.name],) = defaults[option.name]
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def key(flag: str) -> str:
    """A flag as a settings file names it: `batch_size` for `--batch-size`."""
    return flag.lstrip("-").replace("-", "_")


def parse_config(path: Path, known: list[str]) -> dict[str, Any]:
    """The settings of a flat TOML file, named as the flags are: `batch-size = 4` or `batch_size = 4`.

    Raises: InputError for a file that cannot be read or is not TOML, and for a key that is not `known`.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"settings file {path} cannot be read: {error.strerror}; give --config a TOML file") from error
    except ValueError as error:
        raise InputError(f"settings file {path} is not valid TOML: {error}; mend that line") from error
    named = {key(name): value for name, value in settings.items()}
    for name in named:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"known settings: {', '.join(sorted(known))}"
            raise InputError(f"settings file {path} has an unknown setting '{name}'; {advice}")
    return named


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=read_config_file,
        metavar="FILE.toml",
        help="Read settings from a TOML file; flags override them.",
    ),
]
