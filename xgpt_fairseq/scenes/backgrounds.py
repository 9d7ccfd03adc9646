"""What is behind the things of a scene: backgrounds, and in noisy data clutter. All of it pale or dull."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from xgpt_fairseq.scenes.shapes import RGB, rgb

# Skies and land are drawn so many times larger, then reduced: smooth edges.
_FINER = 2

# Colours of plain backgrounds, stripes and so on: pale or dull, so that the things stand out.
_PALE = [
    (232, 226, 214), (214, 226, 234), (222, 232, 216), (236, 220, 222), (226, 220, 236), (238, 232, 208),
    (206, 210, 214), (196, 208, 204), (214, 200, 186), (184, 194, 208),
]  # fmt: skip


def _pale(random: Random) -> np.ndarray:
    return np.array(random.choice(_PALE), np.float32) + np.array(
        [random.uniform(-10, 10) for _ in range(3)], np.float32
    )


def _two_pale(random: Random) -> tuple[np.ndarray, np.ndarray]:
    """Two colours, the second plainly darker."""
    first = _pale(random)
    return first, _pale(random) * random.uniform(0.74, 0.86)


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _mixed(first: np.ndarray, second: np.ndarray, part: np.ndarray) -> Image.Image:
    """*first* where *part* (height, width; 0 to 1) is 0, *second* where it is 1."""
    return _image(first + (second - first) * part[:, :, None])


def _grid(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """x, shape (1, pixels), and y, shape (pixels, 1)."""
    line = np.arange(pixels, dtype=np.float32)
    return line[None, :], line[:, None]


class Canvas:
    """Draws in parts (0 to 1) of the picture's side, and finer than the picture, for smooth edges."""

    def __init__(self, pixels: int, above: RGB, below: RGB, random: Random | None = None) -> None:
        """A sky that goes from the colour *above* to *below*, a little off with *random*."""
        tint = [random.uniform(-10, 10) for _ in range(3)] if random else [0.0] * 3
        ends = [rgb(value + off for value, off in zip(colour, tint, strict=True)) for colour in (above, below)]
        column = Image.new("RGB", (1, 2))
        column.putpixel((0, 0), ends[0])
        column.putpixel((0, 1), ends[1])
        self._pixels, self._side = pixels, _FINER * pixels
        # Between the centres of two pixels, the colours mix evenly.
        self._picture = column.resize((self._side, self._side), Image.Resampling.BILINEAR, (0, 0.5, 1, 1.5))
        self._draw = ImageDraw.Draw(self._picture)

    def picture(self) -> Image.Image:
        return self._picture.reduce(_FINER)

    def _places(self, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self._side, y * self._side) for x, y in points]

    def polygon(self, points: Iterable[tuple[float, float]], fill: RGB) -> None:
        self._draw.polygon(self._places(points), fill)

    def disc(self, x: float, y: float, radius: float, fill: RGB, *, flat: float = 1.0) -> None:
        """A disc around x, y; *flat* is its height : width."""
        corners = [(x - radius, y - flat * radius), (x + radius, y + flat * radius)]
        self._draw.ellipse(self._places(corners), fill)

    def line(self, points: Iterable[tuple[float, float]], fill: RGB, thickness: float) -> None:
        self._draw.line(self._places(points), fill, max(round(thickness * self._side), 1), joint="curve")

    def clouds(self, random: Random, fill: RGB) -> None:
        for _ in range(random.randint(1, 3)):
            x, y = random.uniform(0, 0.8), random.uniform(0.06, 0.28)
            for off, size in ((0.05, 0.05), (0.12, 0.07), (0.19, 0.05)):
                self.disc(x + off, y - size / 4, size, fill, flat=0.75)

    def ground(self, random: Random, level: float, fill: RGB) -> None:
        """All that is below a wavy line at about *level*."""
        shift, waves = random.uniform(0, 2 * math.pi), random.uniform(0.6, 1.4)
        line = [(x / 50, level + 0.035 * math.sin(shift + 2 * math.pi * waves * x / 50)) for x in range(51)]
        self.polygon([*line, (1, 1), (0, 1)], fill)


def _plain(random: Random, pixels: int) -> Image.Image:
    first = _pale(random)
    return Canvas(pixels, rgb(first), rgb(0.93 * first)).picture()


def _gradient(random: Random, pixels: int) -> Image.Image:
    angle, (x, y) = random.uniform(0, 2 * math.pi), _grid(pixels)
    part = 0.5 + 0.8 * ((x / pixels - 0.5) * math.cos(angle) + (y / pixels - 0.5) * math.sin(angle))
    return _mixed(_pale(random), _pale(random) * random.uniform(0.5, 0.62), np.clip(part, 0, 1))


def _speckles(random: Random, pixels: int) -> Image.Image:
    first, second = _two_pale(random)
    canvas = Canvas(pixels, rgb(first), rgb(first))
    for _ in range(random.randint(140, 220)):
        canvas.disc(random.random(), random.random(), random.uniform(0.002, 0.008), rgb(second * 0.9))
    return canvas.picture()


def _stripes(random: Random, pixels: int) -> Image.Image:
    angle, width = random.choice([0, math.pi / 4, math.pi / 2, 3 * math.pi / 4]), random.uniform(0.07, 0.12) * pixels
    x, y = _grid(pixels)
    along = (x * math.cos(angle) + y * math.sin(angle)) / width + random.random()
    return _mixed(*_two_pale(random), np.clip(8 * np.sin(math.pi * along) + 0.5, 0, 1))


def _dots(random: Random, pixels: int) -> Image.Image:
    step, shift = random.uniform(0.1, 0.14) * pixels, random.random()
    x, y = (line / step + shift for line in _grid(pixels))
    x = x + 0.5 * (np.floor(y) % 2)
    far = np.hypot(x % 1 - 0.5, y % 1 - 0.5)
    return _mixed(*_two_pale(random), np.clip((0.3 - far) * step + 0.5, 0, 1))


def _meadow(random: Random, pixels: int) -> Image.Image:
    canvas, level = Canvas(pixels, (150, 200, 238), (222, 238, 246), random), random.uniform(0.5, 0.65)
    canvas.clouds(random, (246, 250, 252))
    canvas.ground(random, level, (176, 210, 150))
    canvas.ground(random, level + 0.12, (150, 194, 122))
    for _ in range(60):
        x, y = random.random(), random.uniform(level + 0.2, 1)
        canvas.line([(x, y), (x + 0.008, y - 0.025)], (128, 176, 104), 0.008)
    return canvas.picture()


def _night(random: Random, pixels: int) -> Image.Image:
    canvas = Canvas(pixels, (62, 70, 122), (118, 122, 172), random)
    for _ in range(45):
        canvas.disc(random.random(), random.uniform(0, 0.9), random.uniform(0.003, 0.009), (236, 236, 214))
    canvas.ground(random, random.uniform(0.84, 0.9), (84, 88, 118))
    return canvas.picture()


def _sea(random: Random, pixels: int) -> Image.Image:
    canvas, level = Canvas(pixels, (176, 214, 236), (240, 240, 232), random), random.uniform(0.42, 0.58)
    canvas.clouds(random, (250, 250, 250))
    canvas.polygon([(0, level), (1, level), (1, 1), (0, 1)], (122, 178, 198))
    for row in range(1, 8):
        start, y = random.uniform(-0.1, 0), level + row / 13
        for i in range(12):
            crest = [(start + i / 11 + x / 110, y + 0.002 * x * (10 - x) / 2.5) for x in range(1, 10, 2)]
            canvas.line(crest, (164, 206, 220), 0.009)
    return canvas.picture()


# Only in noisy data


def _checks(random: Random, pixels: int) -> Image.Image:
    step, shift = random.uniform(0.09, 0.15) * pixels, random.random()
    x, y = (line / step + shift for line in _grid(pixels))
    return _mixed(*_two_pale(random), (np.floor(x) + np.floor(y)) % 2)


def _bricks(random: Random, pixels: int) -> Image.Image:
    step = random.uniform(0.08, 0.11) * pixels
    x, y = (line / step for line in _grid(pixels))
    x = x / 2 + 0.5 * (np.floor(y) % 2)
    mortar = ((y % 1 < 0.1) | (x % 1 < 0.05)).astype(np.float32)
    first = _pale(random) * 0.9
    return _mixed(first, np.minimum(first * 1.2, 240), mortar)


def _sunset(random: Random, pixels: int) -> Image.Image:
    canvas = Canvas(pixels, (168, 158, 186), (240, 218, 200), random)
    canvas.disc(random.uniform(0.2, 0.8), random.uniform(0.45, 0.6), random.uniform(0.1, 0.16), (248, 234, 212))
    canvas.ground(random, random.uniform(0.66, 0.76), (146, 134, 146))
    return canvas.picture()


def _snow(random: Random, pixels: int) -> Image.Image:
    canvas, level = Canvas(pixels, (172, 188, 206), (216, 224, 232), random), random.uniform(0.5, 0.6)
    for peak in (0.2, 0.55, 0.9):
        x = peak + random.uniform(-0.1, 0.1)
        canvas.polygon([(x - 0.3, 1), (x, 0.24), (x + 0.3, 1)], (160, 172, 190))
    canvas.ground(random, level, (232, 236, 242))
    for _ in range(70):
        canvas.disc(random.random(), random.random(), random.uniform(0.003, 0.008), (250, 250, 252))
    return canvas.picture()


def _confetti(picture: Image.Image, random: Random) -> None:
    draw, size = ImageDraw.Draw(picture), picture.width / 40
    for _ in range(random.randint(20, 40)):
        x, y, angle = random.uniform(0, picture.width), random.uniform(0, picture.height), random.uniform(0, math.pi)
        dx, dy = size * math.cos(angle), size * math.sin(angle)
        colour = rgb(random.uniform(130, 235) for _ in range(3))
        draw.polygon([(x + dx, y + dy), (x - dy / 2, y + dx / 2), (x - dx, y - dy), (x + dy / 2, y - dx / 2)], colour)


def _bubbles(picture: Image.Image, random: Random) -> None:
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(random.randint(8, 18)):
        x, y, size = random.uniform(0, picture.width), random.uniform(0, picture.height), random.uniform(0.02, 0.07)
        size *= picture.width
        draw.ellipse([x - size, y - size, x + size, y + size], (255, 255, 255, 60), (255, 255, 255, 150))


def _scribble(picture: Image.Image, random: Random) -> None:
    draw = ImageDraw.Draw(picture)
    for _ in range(random.randint(2, 4)):
        points = [(random.uniform(0, picture.width), random.uniform(0, picture.height)) for _ in range(4)]
        draw.line(points, rgb(random.uniform(110, 200) for _ in range(3)), max(picture.width // 100, 1), joint="curve")


def _watermark(picture: Image.Image, random: Random) -> None:
    draw, step = ImageDraw.Draw(picture, "RGBA"), picture.width // 4
    start = random.randrange(step)
    for y in range(start - step, picture.height, step):
        for x in range(start - step, picture.width, step):
            draw.text((x, y), "SAMPLE", (255, 255, 255, 110))


BACKGROUND_PAINTERS: dict[str, Callable[[Random, int], Image.Image]] = {
    "plain": _plain, "gradient": _gradient, "speckles": _speckles, "stripes": _stripes, "dots": _dots,
    "meadow": _meadow, "night": _night, "sea": _sea,
    "checks": _checks, "bricks": _bricks, "sunset": _sunset, "snow": _snow,
}  # fmt: skip
CLUTTER_PAINTERS: dict[str, Callable[[Image.Image, Random], None]] = {
    "confetti": _confetti, "bubbles": _bubbles, "scribble": _scribble, "watermark": _watermark,
}  # fmt: skip
