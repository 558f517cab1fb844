"""Names of the bundled bases, apart from all that loads them: `--help` does without torch."""

NAMES = ("toybox", "toybox128", "toybox-sd3")
DEFAULT = "toybox128"
