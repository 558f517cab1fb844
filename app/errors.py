"""Errors as the page shows them: one line, and the server goes on."""

from __future__ import annotations

import errno
import functools
import html
import inspect
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.typed import checked

FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


def shown(listener: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an event listener so that what it raises is a message in the page; it may be async, or a generator.

    The message is escaped: the page renders messages as HTML, and they quote what a visitor wrote.
    """
    return _wrap(listener, html.escape, lambda args, kwargs: (args, kwargs))


def answered(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`shown` for functions that only programs call: the message stays as it is, and values are of the kinds named."""
    check = checked(endpoint)

    def prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = check(args, kwargs)
        return bound.args, bound.kwargs

    return _wrap(endpoint, str, prepare)


def warn(text: str) -> None:
    """A warning in the page, escaped: it may quote a file that somebody dropped."""
    gr.Warning(html.escape(text))


Prepare = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def _wrap(listener: Callable[..., Any], encode: Callable[[str], str], prepare: Prepare) -> Callable[..., Any]:
    def translate(error: Exception) -> Exception:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, InputError):
            return gr.Error(encode(str(error)), print_exception=False)
        if isinstance(error, OSError) and error.errno in FULL:
            return gr.Error(encode("the server's disk is full, nothing was changed; make room"), print_exception=False)
        logger.exception("a listener of the page failed", exc_info=error)
        return gr.Error(encode(f"this failed ({type(error).__name__}); the server's log says more"))

    if inspect.isasyncgenfunction(listener):

        @functools.wraps(listener)
        async def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                args, kwargs = prepare(args, kwargs)
                async for update in listener(*args, **kwargs):
                    yield update
            except Exception as error:
                raise translate(error) from error

        return stream

    if inspect.isgeneratorfunction(listener):

        @functools.wraps(listener)
        def steps(*args: Any, **kwargs: Any) -> Any:
            try:
                args, kwargs = prepare(args, kwargs)
                yield from listener(*args, **kwargs)
            except Exception as error:
                raise translate(error) from error

        return steps

    if inspect.iscoroutinefunction(listener):

        @functools.wraps(listener)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            try:
                args, kwargs = prepare(args, kwargs)
                return await listener(*args, **kwargs)
            except Exception as error:
                raise translate(error) from error

        return answer

    @functools.wraps(listener)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            args, kwargs = prepare(args, kwargs)
            return listener(*args, **kwargs)
        except Exception as error:
            raise translate(error) from error

    return call
