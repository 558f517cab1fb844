"""The door of the HTTP API: values of the kinds that an endpoint names, or a sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import gradio as gr
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from spectral_fusion.errors import InputError

DEEPEST = 32


def checked(endpoint: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], inspect.BoundArguments]:
    """A function that checks the arguments of an endpoint by its annotations and returns them converted.

    Raises:
        InputError: a value is of another kind, or text that cannot be written down.
    """
    signature = inspect.signature(endpoint)
    adapters = {name: _adapter(kind) for name, kind in get_type_hints(endpoint).items() if name in signature.parameters}

    @functools.wraps(endpoint)
    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if adapter := adapters.get(name):
                check_text(value, name)
                try:
                    bound.arguments[name] = adapter.validate_python(value)
                except ValidationError as error:
                    raise InputError(_sentence(name, value, error)) from error
        return bound

    return check


def check_text(value: Any, name: str, depth: int = 0) -> None:
    """Raises InputError where text in a value, at any depth, cannot be written as UTF-8, or it is nested too deep."""
    if depth > DEEPEST:
        raise InputError(f"{name} is nested deeper than {DEEPEST} levels; give plain values")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name} holds half a character; write it anew") from error
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, name, depth + 1)
            check_text(item, name, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_text(item, name, depth + 1)


def _adapter(kind: Any) -> TypeAdapter[Any] | None:
    if kind is gr.Request or kind is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return None


def _sentence(name: str, value: Any, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    got = repr(first["input"])[:60]
    return (
        f"{name}{f' ({where})' if where else ''} is of the wrong kind, {got}: {first['msg'].lower()}; "
        "the page of the API lists the kinds"
    )
