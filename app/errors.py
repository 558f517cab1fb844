"""Errors as the page shows them: one line, and the server goes on."""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError

logger = logging.getLogger(__name__)


def shown(listener: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an event listener so that what it raises is a message in the page; it may be async, or a generator.

    The message is escaped: the page renders messages as HTML, and they quote what a visitor wrote.
    """
    return _wrap(listener, html.escape)


def answered(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`shown` for functions that only programs call: the message stays as it is."""
    return _wrap(endpoint, str)


def _wrap(listener: Callable[..., Any], encode: Callable[[str], str]) -> Callable[..., Any]:
    def translate(error: Exception) -> Exception:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, InputError):
            return gr.Error(encode(str(error)), print_exception=False)
        logger.exception("a listener of the page failed", exc_info=error)
        return gr.Error(encode(f"this failed ({type(error).__name__}); the server's log says more"))

    if inspect.isasyncgenfunction(listener):

        @functools.wraps(listener)
        async def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                async for update in listener(*args, **kwargs):
                    yield update
            except Exception as error:
                raise translate(error) from error

        return stream

    if inspect.isgeneratorfunction(listener):

        @functools.wraps(listener)
        def steps(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from listener(*args, **kwargs)
            except Exception as error:
                raise translate(error) from error

        return steps

    if inspect.iscoroutinefunction(listener):

        @functools.wraps(listener)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            try:
                return await listener(*args, **kwargs)
            except Exception as error:
                raise translate(error) from error

        return answer

    @functools.wraps(listener)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return listener(*args, **kwargs)
        except Exception as error:
            raise translate(error) from error

    return call
