"""Names of the bundled bases and what is taken by default, apart from all that loads: `--help` does without torch."""

NAMES = ("toybox", "toybox128", "toybox-sd3")
DEFAULT = "toybox128"
DETAIL = 0.7
"""Part of the steps done again for each of several subjects in its own place; `docs/results/places.md`."""
COMPOSITE = 0.3
"""Part of the steps in which the ground is drawn again round subjects that were drawn apart."""
