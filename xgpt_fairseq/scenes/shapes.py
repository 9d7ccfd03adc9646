"""How things look: each kind is painted from simple forms into a tile of its own, in shades of one colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

HUES: dict[str, RGB] = {
    "red": (222, 30, 34), "yellow": (255, 224, 50), "green": (34, 160, 60), "blue": (20, 88, 232),
    "white": (250, 250, 248), "black": (44, 44, 46),
}  # fmt: skip

_CLEAR = (0, 0, 0, 0)
_WOOD, _LEAF, _GLASS = (128, 84, 48), (70, 140, 60), (206, 230, 244)
_IRON, _CREAM, _BEAK = (64, 64, 70), (255, 244, 214), (242, 166, 40)


@dataclass(frozen=True)
class Shades:
    """The colours that a thing is painted with."""

    base: RGB
    light: RGB
    dark: RGB
    line: RGB

    @classmethod
    def of(cls, colour: str, random: Random) -> Shades:
        """Shades of *colour*, a little different every time."""
        most = 2 if colour in ("black", "white") else 6
        tint, brightness = [random.uniform(-most, most) for _ in range(3)], random.uniform(0.94, 1.04)
        base = rgb(brightness * value + off for value, off in zip(HUES[colour], tint, strict=True))
        line = (120, 124, 134) if colour == "white" else _mixed(base, (16, 14, 24), 0.55)
        return cls(base, _mixed(base, (255, 255, 255), 0.28), _mixed(base, (20, 20, 40), 0.2), line)


def rgb(values: Iterable[float]) -> RGB:
    """Three numbers as a colour."""
    red, green, blue = (min(max(round(value), 0), 255) for value in values)
    return red, green, blue


def _mixed(one: RGB, other: RGB, part: float) -> RGB:
    return rgb((1 - part) * a + part * b for a, b in zip(one, other, strict=True))


class Pen:
    """Draws on a transparent tile. Coordinates are 0 to 1 from its upper left corner; forms have an outline."""

    def __init__(self, width: int, height: int, shades: Shades) -> None:
        self.tile = Image.new("RGBA", (width, height), _CLEAR)
        self.shades = shades
        self._draw = ImageDraw.Draw(self.tile)
        self._line = max(round(0.018 * max(width, height)), 2)

    def _pixels(self, points: Iterable[Point]) -> list[Point]:
        # Half the outline is outside the form: a little space is left for it.
        width, height, edge = *self.tile.size, self._line
        return [(edge + x * (width - 2 * edge), edge + y * (height - 2 * edge)) for x, y in points]

    def polygon(self, points: Iterable[Point], fill: RGB | None = None, *, outline: bool = True) -> None:
        places = self._pixels(points)
        self._draw.polygon(places, fill or self.shades.base)
        if outline:
            self._draw.line([*places, *places[:2]], self.shades.line, self._line, joint="curve")

    def rectangle(self, x1: float, y1: float, x2: float, y2: float, fill: RGB | None = None) -> None:
        self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], fill)

    def oval(
        self, x1: float, y1: float, x2: float, y2: float, fill: RGB | None = None, *, outline: bool = True
    ) -> None:
        line = self.shades.line if outline else None
        self._draw.ellipse(self._pixels([(x1, y1), (x2, y2)]), fill or self.shades.base, line, self._line)

    def line(self, *points: Point, fill: RGB | None = None, thickness: float = 1.0) -> None:
        width = round(thickness * self._line)
        self._draw.line(self._pixels(points), fill or self.shades.line, width, joint="curve")

    def hole(self, x1: float, y1: float, x2: float, y2: float, *, round_: bool) -> None:
        """Cut a hole with an outline: what lies behind the tile shows."""
        draw = self._draw.ellipse if round_ else self._draw.rectangle
        draw(self._pixels([(x1, y1), (x2, y2)]), _CLEAR, self.shades.line, self._line)


def _arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, points: int = 24) -> list[Point]:
    """Points on an ellipse; angles in degrees, from the right and clockwise."""
    angles = [math.radians(start + (stop - start) * i / (points - 1)) for i in range(points)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def _ball(pen: Pen) -> None:
    pen.oval(0, 0, 1, 1, pen.shades.dark)
    pen.oval(0.02, 0.02, 0.9, 0.9, outline=False)
    pen.line(*_arc(0.06, 1.04, 0.56, 0.56, -92, -3))
    pen.line(*_arc(0.98, 0.02, 0.52, 0.52, 84, 180))
    pen.oval(0.2, 0.14, 0.42, 0.34, pen.shades.light, outline=False)


def _star(pen: Pen) -> None:
    corners = [
        (0.5 + radius * math.sin(math.radians(36 * i)), 0.53 - radius * math.cos(math.radians(36 * i)))
        for i, radius in enumerate([0.52, 0.21] * 5)
    ]
    for i, corner in enumerate(corners):
        fill = pen.shades.light if i % 2 else pen.shades.base
        pen.polygon([(0.5, 0.53), corner, corners[(i + 1) % 10]], fill, outline=False)
    pen.line(*corners, *corners[:2])


def _box(pen: Pen) -> None:
    pen.polygon([(0, 0.24), (0.24, 0), (1, 0), (0.76, 0.24)], pen.shades.light)
    pen.polygon([(0.76, 0.24), (1, 0), (1, 0.76), (0.76, 1)], pen.shades.dark)
    pen.rectangle(0, 0.24, 0.76, 1)
    pen.line((0.02, 0.42), (0.74, 0.42))
    pen.rectangle(0.3, 0.36, 0.46, 0.5, pen.shades.light)


def _table(pen: Pen) -> None:
    for x in (0.2, 0.72):
        pen.rectangle(x, 0.24, x + 0.08, 0.8, pen.shades.dark)
    for x in (0.04, 0.86):
        pen.rectangle(x, 0.3, x + 0.1, 1)
    pen.polygon([(0, 0.22), (0.16, 0), (0.84, 0), (1, 0.22)], pen.shades.light)
    pen.rectangle(0, 0.22, 1, 0.38)


def _ring(pen: Pen) -> None:
    pen.oval(0, 0, 1, 1)
    pen.line(*_arc(0.5, 0.5, 0.41, 0.41, 150, 290), fill=pen.shades.light, thickness=2.2)
    pen.line(*_arc(0.5, 0.5, 0.41, 0.41, -20, 110), fill=pen.shades.dark, thickness=2.2)
    pen.hole(0.2, 0.2, 0.8, 0.8, round_=True)


def _house(pen: Pen) -> None:
    pen.rectangle(0.68, 0.06, 0.8, 0.4, pen.shades.dark)
    pen.rectangle(0.1, 0.42, 0.9, 1)
    pen.polygon([(0, 0.46), (0.5, 0), (1, 0.46)], pen.shades.dark)
    pen.rectangle(0.42, 0.64, 0.6, 1, _WOOD)
    for x in (0.18, 0.67):
        pen.rectangle(x, 0.56, x + 0.16, 0.74, _CREAM)
        pen.line((x + 0.08, 0.56), (x + 0.08, 0.74))


def _tree(pen: Pen) -> None:
    pen.polygon([(0.44, 0.5), (0.56, 0.5), (0.6, 1), (0.4, 1)], _WOOD)
    crowns = [(0, 0.26, 0.52, 0.7), (0.48, 0.26, 1, 0.7), (0.18, 0, 0.82, 0.5), (0.22, 0.3, 0.78, 0.74)]
    for crown in crowns:
        pen.oval(*crown)
    for x1, y1, x2, y2 in crowns:  # again without outline: one crown of all
        pen.oval(x1 + 0.03, y1 + 0.03, x2 - 0.03, y2 - 0.03, outline=False)
    for x, y in ((0.34, 0.14), (0.14, 0.4), (0.62, 0.38)):
        pen.oval(x, y, x + 0.16, y + 0.1, pen.shades.light, outline=False)


def _flower(pen: Pen) -> None:
    pen.line((0.5, 0.5), (0.5, 1), fill=_LEAF, thickness=2.6)
    pen.polygon([(0.5, 0.92), (0.12, 0.7), (0.34, 0.92)], _LEAF)
    pen.polygon([(0.5, 0.9), (0.88, 0.66), (0.66, 0.9)], _LEAF)
    for i in range(6):
        x, y = 0.5 + 0.32 * math.sin(math.radians(60 * i)), 0.32 - 0.21 * math.cos(math.radians(60 * i))
        pen.oval(x - 0.18, y - 0.117, x + 0.18, y + 0.117)
    pen.oval(0.34, 0.216, 0.66, 0.424, _WOOD)


def _car(pen: Pen) -> None:
    pen.polygon([(0.15, 0.46), (0.29, 0), (0.69, 0), (0.87, 0.46)])
    pen.polygon([(0.3, 0.36), (0.37, 0.11), (0.47, 0.11), (0.47, 0.36)], _GLASS)
    pen.polygon([(0.53, 0.36), (0.53, 0.11), (0.63, 0.11), (0.72, 0.36)], _GLASS)
    pen.polygon([(0, 0.88), (0, 0.5), (0.1, 0.38), (0.9, 0.4), (1, 0.54), (1, 0.88)])
    pen.line((0.5, 0.44), (0.5, 0.82))
    pen.oval(0.92, 0.5, 0.99, 0.62, _CREAM)
    for x in (0.22, 0.77):
        pen.oval(x - 0.1, 0.7, x + 0.1, 1, _IRON)
        pen.oval(x - 0.05, 0.78, x + 0.05, 0.92, (200, 200, 206), outline=False)


def _cup(pen: Pen) -> None:
    pen.oval(0.58, 0.24, 1, 0.78, pen.shades.dark)
    pen.hole(0.66, 0.36, 0.9, 0.66, round_=True)
    pen.polygon([(0, 0.12), (0.74, 0.12), *_arc(0.37, 0.8, 0.3, 0.2, 0, 180)])
    pen.oval(0, 0, 0.74, 0.26, pen.shades.light)
    pen.oval(0.08, 0.06, 0.66, 0.22, (92, 56, 34), outline=False)
    pen.line((0.12, 0.36), (0.16, 0.78), fill=pen.shades.light, thickness=2.0)


def _fish(pen: Pen) -> None:
    pen.polygon([(0.66, 0.5), (1, 0.08), (0.92, 0.5), (1, 0.92)], pen.shades.dark)
    pen.polygon([(0.3, 0.22), (0.42, 0), (0.66, 0.06), (0.6, 0.26)], pen.shades.dark)
    pen.polygon([(0.34, 0.8), (0.5, 1), (0.58, 0.78)], pen.shades.dark)
    pen.oval(0, 0.14, 0.78, 0.88)
    pen.line(*_arc(0.12, 0.51, 0.18, 0.3, -60, 60))
    for x in (0.44, 0.56):
        pen.line(*_arc(x - 0.1, 0.51, 0.12, 0.2, -60, 60), fill=pen.shades.light, thickness=1.4)
    pen.oval(0.11, 0.32, 0.23, 0.51, (255, 255, 255))
    pen.oval(0.14, 0.38, 0.19, 0.47, (20, 20, 24), outline=False)


def _bird(pen: Pen) -> None:
    for x in (0.46, 0.58):
        pen.line((x, 0.8), (x - 0.02, 0.99), (x - 0.08, 0.99), fill=_BEAK, thickness=1.6)
    pen.polygon([(0.68, 0.5), (1, 0.36), (0.96, 0.6), (0.74, 0.74)], pen.shades.dark)
    pen.oval(0.2, 0.34, 0.84, 0.88)
    pen.polygon([(0.02, 0.28), (0.18, 0.18), (0.18, 0.34)], _BEAK)
    pen.oval(0.12, 0, 0.5, 0.46)
    pen.polygon([*_arc(0.28, 0.24, 0.13, 0.2, 40, 100, 6), (0.24, 0.5), (0.46, 0.44)], outline=False)
    pen.polygon([(0.4, 0.52), *_arc(0.6, 0.54, 0.2, 0.2, 180, 60), (0.86, 0.52)], pen.shades.light)
    pen.oval(0.2, 0.12, 0.29, 0.24, (255, 255, 255))
    pen.oval(0.22, 0.15, 0.265, 0.21, (20, 20, 24), outline=False)


PAINTERS: dict[str, Callable[[Pen], None]] = {
    "ball": _ball, "star": _star, "box": _box, "table": _table, "ring": _ring, "house": _house, "tree": _tree,
    "flower": _flower, "car": _car, "cup": _cup, "fish": _fish, "bird": _bird,
}  # fmt: skip

# Kinds that may lean a little, and that may look to the other side.
LEANING = frozenset({"ball", "star", "flower", "fish", "bird"})
TURNING = frozenset({"car", "cup", "fish", "bird"})
