"""Names of concepts and their triggers: what is allowed, and when two are the same.

Text arrives in several Unicode forms (file systems and phones decompose letters) and in any case. Here both are in NFC,
and two that differ in case alone are the same: the tokenizer lowers what it reads, and some file systems know no case.
"""

import re
import unicodedata
from collections.abc import Iterable

from spectral_fusion.errors import InputError, shown

NAME = re.compile(r"[^\W_][\w-]{0,63}")
NAME_BYTES = 192  # a file name holds 255, and the trash adds the time of day to a name
RESERVED = re.compile(r"con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]", re.IGNORECASE)  # not usable as file names on Windows
TRIGGER = re.compile(r"<[\w-]{1,60}>")
MENTION = re.compile(r"<[\w-]+>")  # what a text writes like a trigger


def normal(text: str) -> str:
    """The text in NFC: one letter, one code."""
    return unicodedata.normalize("NFC", text)


def key(text: str) -> str:
    """What two names, or two triggers, share exactly if they are the same."""
    return normal(normal(text).casefold())


def same(first: str, second: str) -> bool:
    """Whether two names, or two triggers, are the same."""
    return key(first) == key(second)


def mentions(text: str) -> list[str]:
    """What a text writes like triggers, in NFC, in order."""
    return MENTION.findall(normal(text)) if "<" in text else []


def speaks_of(text: str, trigger: str) -> bool:
    """Whether a trigger stands in a text, in any case and Unicode form."""
    return key(trigger) in map(key, mentions(text))


def respell(text: str, triggers: Iterable[str]) -> str:
    """The text with these triggers written as they are here, whatever case or Unicode form it has them in."""
    if "<" not in text:
        return text
    known = {key(trigger): trigger for trigger in triggers}
    return MENTION.sub(lambda match: known.get(key(match[0]), match[0]), normal(text))


def check_name(name: str) -> str:
    """Return the name, in NFC, if it can be a folder and an adapter.

    Raises:
        InputError: it cannot.
    """
    found = normal(name) if isinstance(name, str) and len(name) < 1000 else ""
    if not NAME.fullmatch(found) or RESERVED.fullmatch(found) or len(found.encode()) > NAME_BYTES:
        raise InputError(
            f"{shown(name)} cannot name a concept: use up to 64 letters, digits, - or _ ({NAME_BYTES} bytes in UTF-8), "
            "a letter or digit first"
        )
    return found


def check_trigger(trigger: str) -> str:
    """Return the trigger, in NFC, if it is well formed: angle brackets round letters, digits, `-` and `_`.

    Raises:
        InputError: it is not. A `:`, a bracket or a blank inside would be read as a prompt weight or split.
    """
    found = normal(trigger) if isinstance(trigger, str) and len(trigger) < 1000 else ""
    if not TRIGGER.fullmatch(found):
        word = re.sub(r"[^\w-]+", "", found)[:60] or "rex"
        raise InputError(
            f"trigger {shown(trigger)} cannot be used in prompts; write letters, digits, - or _ in angle brackets: "
            f"<{word}>"
        )
    return found
