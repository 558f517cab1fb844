"""What all verbs share: flags that take several values, and settings from a TOML file.

A verb uses them by its annotations alone: every `list` option takes several values after one flag, and a parameter
`config: ConfigFile = None` adds `--config FILE.toml`.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

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
    options = {p.name: p for p in ctx.command.params if p.name and p.name not in ("config", "help")}
    names = {spelt: name for name, option in options.items() for spelt in spellings(option)}
    settings: dict[str, Any] = {}
    for key, value in parse_config(path, [*names]).items():
        name = names[key]
        if name in settings:
            raise InputError(f"settings file {path} has '{key}' twice, by two names of one setting; keep one")
        settings[name] = checked(options[name], value, f"settings file {path} has {key} = {shown(value, 40)}")
    ctx.default_map = {**(ctx.default_map or {}), **settings}
    return path


def spellings(option: Any) -> list[str]:
    """What a settings file may call an option: as its flags are named, or as the verb calls it inside."""
    flags = [flag.lstrip("-").replace("-", "_") for flag in option.opts if flag.startswith("--")]
    return list(dict.fromkeys([*flags, str(option.name)]))


def checked(option: Any, value: Any, said: str) -> Any:
    """A value of the type that an option takes, several in a list; raises InputError, which begins with `said`."""
    if getattr(option, "multiple", False):
        values = value if isinstance(value, list) else [value]
        return [_checked_one(option, item, said) for item in values]
    return _checked_one(option, value, said)


def _checked_one(option: Any, value: Any, said: str) -> Any:
    kind = _kind(option)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is bool:
        fits, wanted = isinstance(value, bool), "true or false"
    elif kind is int:
        fits, wanted = number and isinstance(value, int), "a whole number"
    elif kind is float:
        fits, wanted = number, "a number"
    else:
        fits, wanted = isinstance(value, str) or (number and isinstance(value, int)), "text in quotes"
        value = str(value) if fits else value
    if not fits:
        raise InputError(f"{said}; give {wanted}")
    return value


def _kind(option: Any) -> type:
    """bool, int, float, or str for all that is given as text."""
    if getattr(option, "is_flag", False):
        return bool
    descriptor = getattr(option, "type_descriptor", None)  # typer from 0.20 on; before, click's own types
    annotation = getattr(descriptor, "annotation", None)
    if annotation is None:
        return {"integer": int, "float": float}.get(str(option.type.name).split()[0], str)
    annotation = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    return annotation if annotation in (int, float) else str


def parse_config(path: Path, known: list[str]) -> dict[str, Any]:
    """The settings of a flat TOML file, named as the flags are: `batch-size = 4` or `batch_size = 4`.

    Raises: InputError for a file that cannot be read or is not TOML, and for a key that is not `known`.
    """
    settings = read_toml(path, "settings file")
    named = {key.replace("-", "_"): value for key, value in settings.items()}
    refuse_unknown(named, known, f"settings file {path}")
    return named


def read_toml(path: Path, what: str, *, largest: int = 2**16) -> dict[str, Any]:
    """What a TOML file of at most `largest` bytes holds; `what` it is called in errors.

    Raises: InputError for a file that cannot be read or is not TOML.
    """
    from spectral_fusion.reading import parse_toml, read_text

    try:
        text = read_text(path, largest=largest)
    except InputError as error:
        raise InputError(f"{what} {error}; give a TOML file") from error
    return parse_toml(text, f"{what} {path}")


def refuse_unknown(named: Iterable[str], known: list[str], where: str) -> None:
    """Raises InputError where a name is not `known`, with the nearest one."""
    for key in named:
        if key not in known:
            near = get_close_matches(key[:100], known, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"known settings: {', '.join(sorted(known))}"
            raise InputError(f"{where} has an unknown setting {shown(key)}; {advice}")


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


def check_together(given: Mapping[str, object]) -> None:
    """Raises InputError where one of these flags is given and another is not. given: their values; None: left out."""
    present = [flag for flag, value in given.items() if value is not None]
    missing = [flag for flag, value in given.items() if value is None]
    if present and missing:
        raise InputError(f"{present[0]} is given without {missing[0]}; give both")
