"""Contact sheets."""

from collections.abc import Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures of one size as a table with a label before each row and above each column."""
    width, height = rows[0][0].size
    gap, line = 4, 18
    font = ImageFont.load_default()
    longest = [ceil(max(map(font.getlength, labels), default=0)) for labels in (row_labels or [], column_labels or [])]
    left = max(line * 4, longest[0] + 2 * gap) if row_labels else gap
    top = line + gap if column_labels else gap
    across, columns = max(width, longest[1]) + gap, max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + columns * across, top + len(rows) * (height + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, label in enumerate(column_labels or []):
        draw.text((left + number * across, gap), label, fill="black", font=font)
    for number, row in enumerate(rows):
        y = top + number * (height + gap)
        if row_labels:
            draw.text((gap, y + height // 2 - line // 2), row_labels[number], fill="black", font=font)
        for column, image in enumerate(row):
            sheet.paste(image, (left + column * across, y))
    return sheet
