"""The one exception for bad input."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that says what is wrong, what was got and what to do. The command line prints it and
    exits with 2; the web page shows it. Everything else that is raised is a bug of ours.
    """
