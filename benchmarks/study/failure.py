"""The one way in which a run may fail and still be a result."""


class Diverged(Exception):
    """The loss, a weight or a picture is not finite."""
