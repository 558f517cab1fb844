"""Contact sheets."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures of one size as a table with a label before each row and above each column."""
    width, height = rows[0][0].size
    gap, line = 4, 18
    left = line * 4 if row_labels else gap
    top = line + gap if column_labels else gap
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + columns * (width + gap), top + len(rows) * (height + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, label in enumerate(column_labels or []):
        draw.text((left + number * (width + gap), gap), label, fill="black", font=font)
    for number, row in enumerate(rows):
        y = top + number * (height + gap)
        if row_labels:
            draw.text((gap, y + height // 2 - line // 2), row_labels[number], fill="black", font=font)
        for column, image in enumerate(row):
            sheet.paste(image, (left + column * (width + gap), y))
    return sheet
