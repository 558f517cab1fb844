"""Parts of the page that have a script of their own: HTML and scripts from files, and functions of the server.

A script calls `server.name(value)`; the function gets the request and the value, and returns the answer. Such calls
pass Gradio's queue by: they hold none of its places, and a page may ask often.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.errors import DISK
from spectral_fusion_app.guard import SHOWN
from spectral_fusion_app.messages import field_of, shown, spoken
from spectral_fusion_app.modules import import_once
from spectral_fusion_app.settings import AppSettings
from spectral_fusion_app.typed import check_text
from spectral_fusion_app.visitors import Visitor, visitor_of

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
Answer = Callable[[Visitor, Any], Any]


def read(*names: str) -> str:
    """Files of this folder, one after the other."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def served(answers: dict[str, Answer]) -> list[Callable[..., Any]]:
    """The functions of a part, as Gradio takes them. An `InputError` becomes `{"error": ..., "field": ...}`."""
    return [_function(name, answer) for name, answer in answers.items()]


def picture_url(path: Path, settings: AppSettings) -> str:
    """Where a browser finds a file that it is shown; where that lies on the server is nobody's business."""
    file = path.resolve()
    for folder in settings.shown:
        if file.is_relative_to(folder.resolve()):
            return f"{SHOWN}/{folder.name}/{quote(file.relative_to(folder.resolve()).as_posix())}"
    raise ValueError(f"{path} is in none of the folders that browsers are shown")


def component(name: str, scripts: Sequence[str], answers: dict[str, Answer], **options: Any) -> gr.HTML:
    """A part of the page from `<name>.html` and its scripts. `value` must not change: the script owns what it shows."""
    return gr.HTML(
        html_template=read(f"{name}.html"),
        js_on_load=read(*scripts),
        server_functions=served(answers),
        apply_default_css=False,
        padding=False,
        **options,
    )


def _function(name: str, answer: Answer) -> Callable[..., Any]:
    def call(request: gr.Request, data: Any = None) -> Any:
        try:
            import_once()
            check_text(data, "the request")
            return shown(answer(visitor_of(request), data))
        except InputError as error:
            return {"error": spoken(str(error)), "field": field_of(str(error))}
        except OSError as error:
            logger.exception("%s failed", name)
            known = f"the server could not do this: {error.strerror or 'an error of its disk'}"
            return {"error": DISK.get(error.errno or 0, known), "field": ""}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            logger.exception("%s was asked in an unknown way", name)
            return {"error": "the page asked in a way that the server does not know; load the page again", "field": ""}

    call.__name__ = name
    return call
