"""Errors as programs get them: one line, and the server goes on."""

from __future__ import annotations

import errno
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.modules import import_once, imported
from spectral_fusion_app.paths import told
from spectral_fusion_app.typed import checked

DISK = {
    errno.ENOSPC: "the server's disk is full, nothing was changed; make room",
    errno.EFBIG: "the server's disk lets no file grow as large, nothing was changed; make room",
    errno.EDQUOT: "the server has used up its share of the disk, nothing was changed; make room",
    errno.EROFS: "the server's disk is read-only, nothing was changed; let it write there",
    errno.EACCES: "the server may not write there, nothing was changed; give it the permission",
    errno.EPERM: "the server may not write there, nothing was changed; give it the permission",
}

logger = logging.getLogger(__name__)


def told_of(error: BaseException) -> str:
    """What a visitor is told of an error that ended his work."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in DISK:
        return DISK[error.errno]
    return "this failed; the log says more"


def answered(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an endpoint so that its values are of the kinds named and what it raises is one line.

    It may be async, or a generator.
    """
    check = checked(endpoint)

    def prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = check(args, kwargs)
        return bound.args, bound.kwargs

    return _wrap(endpoint, prepare)


Prepare = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def _wrap(listener: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    def translate(error: Exception) -> Exception:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, InputError):
            return gr.Error(told(str(error)), print_exception=False)
        if isinstance(error, OSError) and error.errno in DISK:
            return gr.Error(DISK[error.errno], print_exception=False)
        logger.exception("a listener of the page failed", exc_info=error)
        if isinstance(error, OSError):
            return gr.Error(f"the server could not do this: {error.strerror or 'an error of its disk'}")
        return gr.Error(f"this failed ({type(error).__name__}); the server's log says more")

    if inspect.isasyncgenfunction(listener):

        @functools.wraps(listener)
        async def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                await imported()
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
                import_once()
                args, kwargs = prepare(args, kwargs)
                yield from listener(*args, **kwargs)
            except Exception as error:
                raise translate(error) from error

        return steps

    if inspect.iscoroutinefunction(listener):

        @functools.wraps(listener)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            try:
                await imported()
                args, kwargs = prepare(args, kwargs)
                return await listener(*args, **kwargs)
            except Exception as error:
                raise translate(error) from error

        return answer

    @functools.wraps(listener)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            import_once()
            args, kwargs = prepare(args, kwargs)
            return listener(*args, **kwargs)
        except Exception as error:
            raise translate(error) from error

    return call
