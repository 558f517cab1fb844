"""What a concept and its trigger may be called."""

import re

from spectral_fusion.errors import InputError

NAME = re.compile(r"[^\W_][\w-]{0,63}")
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)  # not usable as file names on Windows
TRIGGER = re.compile(r"<[\w-]{1,60}>")


def check_name(name: str) -> str:
    """Return the name if it can be a folder and an adapter.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or RESERVED.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a concept: use up to 64 letters, digits, - or _, a letter or digit first"
        )
    return name


def check_trigger(trigger: str) -> str:
    """Return the trigger if it is well formed: angle brackets round letters, digits, `-` and `_`.

    Raises:
        InputError: it is not. A `:`, a bracket or a blank inside would be read as a prompt weight or split.
    """
    if not isinstance(trigger, str) or not TRIGGER.fullmatch(trigger):
        word = re.sub(r"[^\w-]+", "", str(trigger)) or "rex"
        raise InputError(
            f"trigger {trigger!r} cannot be used in prompts; write letters, digits, - or _ in angle brackets: <{word}>"
        )
    return trigger
