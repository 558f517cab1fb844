"""Parts of the page that have a script of their own: HTML and scripts from files, and functions of the server.

A script calls `server.name(value)`; the function gets the request and the value, and returns the answer. Such calls
pass Gradio's queue by: they hold none of its places, and a page may ask often.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from spectral_fusion.errors import InputError
from spectral_fusion_app.errors import DISK
from spectral_fusion_app.modules import import_once
from spectral_fusion_app.paths import told
from spectral_fusion_app.typed import check_text
from spectral_fusion_app.visitors import Visitor, visitor_of

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
FIELDS = (  # what a message says -> the field of the page that it is about
    (r"^(the prompt|prompt\b|no concept (here|')|\d+ characters in a prompt|\d+ tokens)", "prompt"),
    (r"^seed\b", "seed"),
    (r"^(the |a )?grid\b", "grid"),
    (r"^axes\b", "grid"),
    (r"^(width|\d+ pixels)\b", "width"),
    (r"^height\b", "height"),
    (r"^(num_inference_steps|steps\b|\d+ steps)", "steps"),
    (r"^guidance", "guidance"),
    (r"^(the start picture|start:|strength\b|a mask to repaint)", "start"),
    (r"^(the control picture|control:|ControlNet\b|bases of the family \w+ take no ControlNet)", "control"),
    (r"^(upscale|upscale_strength|detail)\b", "finish"),
    (r"^(num_images|pictures:|\d+ pictures)", "pictures"),
    (r"^(the )?sampler\b", "sampler"),
    (r"^(\d+ )?regions?\b", "regions"),
    (r"^name\b|^the library has a concept|^a training of|.*cannot name a concept", "name"),
    (r"^class_word\b", "class"),
    (r"^trigger\b", "trigger"),
)

MESSAGES = ("error", "message", "problem", "lost", "lost_control")
"""Where an answer holds words that may name files of the server."""

Answer = Callable[[Visitor, Any], Any]


def read(*names: str) -> str:
    """Files of this folder, one after the other."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def served(answers: dict[str, Answer]) -> list[Callable[..., Any]]:
    """The functions of a part, as Gradio takes them. An `InputError` becomes `{"error": ..., "field": ...}`."""
    return [_function(name, answer) for name, answer in answers.items()]


def field_of(message: str) -> str:
    """Which field a message is about; empty where it is about none."""
    return next((field for pattern, field in FIELDS if re.match(pattern, message)), "")


def shown(answer: Any) -> Any:
    """An answer whose messages tell of files as visitors may know them."""
    if isinstance(answer, dict):
        texts = {key: told(answer[key]) for key in MESSAGES if isinstance(answer.get(key), str)}
        return {key: shown(value) for key, value in answer.items()} | texts
    return [shown(value) for value in answer] if isinstance(answer, list) else answer


def picture_url(path: Path) -> str:
    """Where a browser finds a file that the server may show."""
    return f"gradio_api/file={quote(str(path))}"


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
            return {"error": told(str(error)), "field": field_of(str(error))}
        except OSError as error:
            logger.exception("%s failed", name)
            known = f"the server could not do this: {error.strerror or 'an error of its disk'}"
            return {"error": DISK.get(error.errno or 0, known), "field": ""}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            logger.exception("%s was asked in an unknown way", name)
            return {"error": "the page asked in a way that the server does not know; load the page again", "field": ""}

    call.__name__ = name
    return call
