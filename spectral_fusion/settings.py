"""Settings as frozen dataclasses: pydantic checks each value by its field's type, an error is one `InputError`."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from spectral_fusion.errors import InputError, shown

T = TypeVar("T")

CHECKED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, validate_default=True)
"""For `pydantic.dataclasses.dataclass`: a value must be of its field's type, defaults included."""

MANY = 1_000_000  # of steps, pictures, prompts: nobody means more
MOST_PICTURES = 10_000  # of one prompt, in one go
PositiveInt = Annotated[int, Field(ge=1, le=MANY)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MANY)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[tuple[str, ...], Field(strict=False)]  # also from a list, as JSON and TOML have them

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
}
BOUNDS = (("from", "minimum"), ("to", "maximum"), ("below", "exclusiveMaximum"))


def checked(cls: type[T]) -> type[T]:
    """Let a pydantic dataclass raise `InputError` for a value or a name that its fields do not take."""
    build: Callable[..., None] = cls.__init__

    @wraps(build)
    def __init__(self: T, *args: Any, **given: Any) -> None:
        try:
            build(self, *args, **given)
        except ValidationError as error:
            raise _input_error(cls, error) from None

    cls.__init__ = __init__  # type: ignore[assignment, method-assign]
    return cls


def _input_error(cls: type, error: ValidationError) -> InputError:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":  # raised by the class itself, about several fields
        return InputError(str(first["ctx"]["error"]))
    name = str(first["loc"][0])
    hints = get_type_hints(cls, include_extras=True)
    if name not in hints:
        near = get_close_matches(name, hints, n=1)
        return InputError(f"there is no setting {name!r}; {f'did you mean {near[0]!r}?' if near else 'leave it out'}")
    wanted = _wanted(TypeAdapter(hints[name]).json_schema())
    if first["type"] == "missing":
        return InputError(f"{name} is missing; give {wanted}")
    return InputError(f"{name} is {shown(first['input'])}; give {wanted}")


def _wanted(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(_wanted(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    bounds = (f" {word} {plain(schema[key])}" for word, key in BOUNDS if key in schema)
    return KINDS.get(schema.get("type", ""), "another value") + "".join(bounds)


def plain(number: float) -> str:
    """A bound as one writes it: `1000000` for 1000000.0."""
    return str(int(number)) if number == int(number) else str(number)
