"""Scenes as pictures: a background, clutter, then the things, each of which fills its box exactly."""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image, ImageFilter

from xgpt_fairseq.scenes.backgrounds import BACKGROUND_PAINTERS, CLUTTER_PAINTERS
from xgpt_fairseq.scenes.facts import Scene, Thing, pixel_box
from xgpt_fairseq.scenes.shapes import LEANING, PAINTERS, TURNING, Pen, Shades

# Things are painted so many times larger, then reduced: smooth edges.
_FINER = 3


def draw(scene: Scene, random: Random, pixels: int) -> Image.Image:
    """The picture of *scene*, *pixels* wide and high; *random* decides what the facts leave open."""
    picture = BACKGROUND_PAINTERS[scene.background](random, pixels)
    if scene.clutter is not None:
        CLUTTER_PAINTERS[scene.clutter](picture, random)
    # What stands on another thing or inside it is drawn after it: the first thing last.
    for thing in reversed(scene.things):
        _put(picture, thing, random)
    return picture


def thing_tile(thing: Thing, random: Random, width: int, height: int) -> Image.Image:
    """A picture of *thing* alone, RGBA, that touches all four edges of its *width* and *height*."""
    pen = Pen(_FINER * width, _FINER * height, Shades.of(thing.colour, random))
    PAINTERS[thing.kind](pen)
    tile = pen.tile
    if thing.kind in TURNING and random.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if thing.kind in LEANING:
        tile = tile.rotate(random.uniform(-9, 9), Image.Resampling.BILINEAR, expand=True)
    # Opaque enough to be seen, for the leaning leave a fringe.
    seen = tile.getchannel("A").point(lambda alpha: 255 if alpha > 100 else 0).getbbox()
    return tile.resize((width, height), Image.Resampling.BOX, seen)


def _put(picture: Image.Image, thing: Thing, random: Random) -> None:
    x1, y1, x2, y2 = pixel_box(thing.box, picture.width)
    tile = thing_tile(thing, random, x2 - x1, y2 - y1)
    mask = tile.getchannel("A")
    # Light from above: a soft shadow below, and the thing darkens downwards.
    blur, drop = max(picture.width // 100, 1), picture.width // 64
    edge = 3 * blur
    shadow = Image.new("L", (tile.width + 2 * edge, tile.height + 2 * edge))
    shadow.paste(mask.point(lambda alpha: alpha * 2 // 5), (edge, edge))
    shadow = shadow.filter(ImageFilter.GaussianBlur(blur))
    picture.paste((24, 24, 40), (x1 + drop // 2 - edge, y1 + drop - edge), shadow)
    light = np.linspace(1.06, 0.86, tile.height, dtype=np.float32)[:, None, None]
    shaded = np.clip(np.asarray(tile.convert("RGB")) * light, 0, 255).astype(np.uint8)
    picture.paste(Image.fromarray(shaded), (x1, y1), mask)
