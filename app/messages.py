"""Messages of the jobs as the page tells them: beside their field, by the names of its fields, in its own words."""

from __future__ import annotations

import re
from typing import Any

from spectral_fusion_app.paths import told

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
    (r"^upscale_strength\b", "upscale_strength"),
    (r"^upscale\b", "upscale"),
    (r"^detail\b", "detail"),
    (r"^composite\b", "regions"),
    (r"^(num_images|pictures:|\d+ pictures)", "pictures"),
    (r"^(the )?sampler\b", "sampler"),
    (r"^(\d+ )?regions?\b", "regions"),
    (r"^name\b|^the library has a concept|^a training of|.*cannot name a concept", "name"),
    (r"^class_word\b", "class"),
    (r"^trigger\b", "trigger"),
)
NAMES = {  # what a setting is called on the page, where that is another word
    "num_inference_steps": "steps",
    "num_images": "pictures",
    "guidance_scale": "guidance",
    "class_word": "the kind",
    "upscale_strength": "how much upscaling changes",
}
SETTING = re.compile(r"^[a-z]+(?:_[a-z]+)+\b")
FLAG = re.compile(r"; give --[\w-]+ (\S+)")
BYTES = re.compile(r" \(\d+ bytes in UTF-8\)|: its header would take \d+ bytes")
TOLD = ("error", "message", "problem", "lost", "lost_control")
"""Where an answer holds a message."""


def field_of(message: str) -> str:
    """Which field a message is about: one of Create's, or the setting that it begins with; empty where about none."""
    known = next((field for pattern, field in FIELDS if re.match(pattern, message)), "")
    setting = SETTING.match(message)
    return known or (setting[0] if setting else "")


def spoken(message: str) -> str:
    """A message without flags of the command line, names of variables and folders of the server."""
    message = SETTING.sub(lambda found: NAMES.get(found[0], found[0].replace("_", " ")), told(message))
    return BYTES.sub("", FLAG.sub(r"; write it, such as \1", message))


def shown(answer: Any) -> Any:
    """An answer with its messages as the page tells them."""
    if isinstance(answer, dict):
        texts = {key: spoken(answer[key]) for key in TOLD if isinstance(answer.get(key), str)}
        return {key: shown(value) for key, value in answer.items()} | texts
    return [shown(value) for value in answer] if isinstance(answer, list) else answer
