"""Where subjects stand in toybox's pictures."""

from spectral_fusion.toybox.world import LAYOUTS

GROUND = 0.885  # height of the line that subjects stand on, from the top
ROOM = 0.42  # twice this, over their number, is the height of more subjects than toybox's scenes hold


def standing_boxes(count: int) -> list[tuple[float, float, float, float]]:
    """Squares (left, top, right, bottom), in parts of the picture, for `count` subjects side by side on the ground."""
    centres, half = LAYOUTS.get(count) or (tuple((place + 0.5) / count for place in range(count)), ROOM / count)
    return [(x - half, GROUND - 2 * half, x + half, GROUND) for x in centres]
