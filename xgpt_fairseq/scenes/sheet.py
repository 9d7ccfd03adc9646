"""A contact sheet: pictures in rows, each with its caption below."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_GAP = 12
_LINES = 3
_PAPER, _INK = (255, 255, 255), (40, 40, 48)


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int) -> Image.Image:
    """*pictures*, all of one size, *columns* in a row, with their *captions* wrapped to the width."""
    width, height = pictures[0].size
    font = ImageFont.load_default(size=width // 15)
    line = width // 12
    cell_width, cell_height = width + _GAP, height + _LINES * line + _GAP
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = _GAP + place % columns * cell_width, _GAP + place // columns * cell_height
        sheet.paste(picture, (x, y))
        for number, text in enumerate(_wrapped(caption, font, width)[:_LINES]):
            draw.text((x, y + height + _GAP // 4 + number * line), text, _INK, font)
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
