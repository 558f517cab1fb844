"""The one exception for bad input, and text that is safe to print."""

LONGEST = 4000  # characters of a message; what was got may be a file's worth of text


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that says what is wrong, what was got and what to do. The command line prints it and
    exits with 2; the web page shows it. Everything else that is raised is a bug of ours.
    """

    def __init__(self, message: str):
        message = printable(message)
        super().__init__(message if len(message) <= LONGEST else f"{message[:LONGEST]}…")


class MissingError(InputError):
    """A file is not where it was said to be, or is there no longer."""


def printable(text: str) -> str:
    """The text in one line that shows as it is read: control characters, and what turns the direction, escaped."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in str(text))


def shown(value: object, longest: int = 80) -> str:
    """A value for a message, as in Python and not longer than this."""
    text = repr(value[: longest + 1] if isinstance(value, (str, bytes, list, tuple)) else value)
    return text if len(text) <= longest + 2 else f"{text[:longest]}…"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", errors="backslashreplace").decode("ascii")
