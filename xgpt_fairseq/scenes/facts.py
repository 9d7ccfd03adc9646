"""What there is to see in a scene: things of a kind, a colour, a size and a place, one relation, a background.

A scene says nothing of how it is drawn (drawing.py) or worded (captions.py, alt_texts.py). Each comes
from a `Random` of its own, so that scene 12 is the same however many there are and whoever makes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import TypeVar

# Kind → width : height of its picture. Few kinds and colours, and plainly different ones: a small captioner is to learn
# them in a few minutes from ImageNet features, which care little for colour.
KINDS = {
    "ball": 1.0, "star": 1.05, "box": 1.0, "table": 1.4, "ring": 1.0, "house": 1.0, "tree": 0.8, "flower": 0.65,
    "car": 1.5, "cup": 1.2, "fish": 1.6, "bird": 1.25,
}  # fmt: skip

COLOURS = ("red", "yellow", "green", "blue", "white", "black")

# What another thing can stand on.
SUPPORTS = ("box", "table")
# What another thing can be inside → how large that one can be, as a part of the shorter side.
CONTAINERS = {"ring": 0.4}

# Relation → how often. "A left of B" also stands for "B right of A", and "A above B" for "B below A".
RELATIONS = {"left of": 0.42, "above": 0.22, "on": 0.13, "inside": 0.11, "between": 0.12}
ALONE = "alone"

BACKGROUNDS = {"plain": 2, "gradient": 2, "speckles": 1.5, "stripes": 2, "dots": 1.5, "meadow": 3, "night": 2, "sea": 2}

# Size → the longer side of a thing, as a part of the picture's.
SIZES = {"small": (0.25, 0.30), "big": (0.38, 0.43)}
_CONTAINER = (0.68, 0.80)
_IN_A_ROW = (0.24, 0.27)
_MARGIN = 0.03  # free at the edges of the picture
_GAP = 0.05  # free between things at least
_OVERLAP = 0.03  # of a thing and what it stands on

Box = tuple[float, float, float, float]
Pair = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """One thing. `box` is x1, y1, x2, y2, as parts (0 to 1) of the width and the height of the picture."""

    kind: str
    colour: str
    size: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """One to three things and what relates them.

    Attributes:
        relation: one of `RELATIONS`, and its first thing comes first: `things[0]` is left of, above, on or inside
            `things[1]`, or between `things[1]`, which is on the left, and `things[2]`. `ALONE` with one thing.
        background: one of `BACKGROUNDS`; in noisy data also of alt_texts.py's.
        clutter: what lies about beside the things, in noisy data: one of backgrounds.py's, or nothing.
    """

    things: tuple[Thing, ...]
    relation: str
    background: str
    clutter: str | None = None


def pixel_box(box: Box, pixels: int) -> tuple[int, int, int, int]:
    """*box* in whole pixels, x1, y1, x2, y2; the thing fills it from edge to edge."""
    x1, y1, x2, y2 = (round(pixels * side) for side in box)
    return x1, y1, x2, y2


def choose(random: Random, weights: Mapping[T, float]) -> T:
    """One of the keys, drawn by their weights."""
    return random.choices(list(weights), list(weights.values()))[0]


def all_pairs() -> frozenset[Pair]:
    return frozenset((colour, kind) for colour in COLOURS for kind in KINDS)


def held_out_pairs(seed: int) -> frozenset[Pair]:
    """The pairs of colour and kind that only the split `unseen` shows: one of each kind, as many of each colour."""
    random = Random(f"held out {seed}")
    kinds, colours = list(KINDS), list(COLOURS)
    random.shuffle(kinds)
    random.shuffle(colours)
    return frozenset(zip(cycle(colours), kinds, strict=False))


def random_scene(
    random: Random,
    pairs: Collection[Pair],
    *,
    one_of: Collection[Pair] = (),
    relations: Mapping[str, float] = RELATIONS,
    backgrounds: Mapping[str, float] = BACKGROUNDS,
    clutter: Mapping[str | None, float] | None = None,
) -> Scene:
    """A scene of things of *pairs* (colour, kind), no two of one kind.

    Args:
        pairs: the combinations that may be seen.
        one_of: if there are any, one thing of the scene is of these instead.
    """
    relation = choose(random, relations)
    kinds = _kinds(random, relation)
    special = random.randrange(len(kinds)) if one_of else None
    if special is not None:
        # Of any kind that can stand in this place of the relation and is not in another.
        others = kinds[:special] + kinds[special + 1 :]
        possible = sorted(kind for _, kind in one_of if kind not in others and _fits(relation, special, kind))
        kinds[special] = random.choice(possible)
    colours = []
    for place, kind in enumerate(kinds):
        of_kind = sorted(colour for colour, other in (one_of if place == special else pairs) if other == kind)
        colours.append(random.choice(of_kind))
    sizes, boxes = _LAYOUTS[relation](random, [KINDS[kind] for kind in kinds], kinds)
    things = tuple(Thing(*thing) for thing in zip(kinds, colours, sizes, boxes, strict=True))
    return Scene(things, relation, choose(random, backgrounds), choose(random, clutter) if clutter else None)


def _fits(relation: str, place: int, kind: str) -> bool:
    """Whether a thing of *kind* can stand in that *place* of the relation."""
    if relation == "on":
        return kind in SUPPORTS if place == 1 else kind not in ("table", "ring")
    if relation == "inside":
        return kind in CONTAINERS if place == 1 else kind not in (*CONTAINERS, "table")
    return True


def _kinds(random: Random, relation: str) -> list[str]:
    kinds: list[str] = []
    count = {ALONE: 1, "between": 3}.get(relation, 2)
    for place in reversed(range(count)):  # what stands below or around first: it has the smaller choice
        kinds.insert(0, random.choice([k for k in KINDS if k not in kinds and _fits(relation, place, k)]))
    return kinds


def _extent(random: Random, sides: tuple[float, float], aspect: float) -> tuple[float, float]:
    """Width and height with the longer side in the range *sides*, and a little off *aspect*."""
    side, aspect = random.uniform(*sides), aspect * random.uniform(0.94, 1.06)
    return (side, side / aspect) if aspect >= 1 else (side * aspect, side)


def _at(x: float, y: float, width: float, height: float) -> Box:
    return x, y, x + width, y + height


Layout = tuple[list[str], list[Box]]


def _alone(random: Random, aspects: list[float], _: list[str]) -> Layout:
    size = random.choice(list(SIZES))
    width, height = _extent(random, SIZES[size], aspects[0])
    x, y = (random.uniform(_MARGIN, 1 - _MARGIN - side) for side in (width, height))
    return [size], [_at(x, y, width, height)]


def _along(random: Random, extents: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places (along, across) of things in a row that leads along the first axis: apart, and nearly level."""
    free = 1 - 2 * _MARGIN - sum(along for along, _ in extents) - _GAP * (len(extents) - 1)
    cuts = sorted(random.uniform(0, free) for _ in extents)
    # Not far off a line, so that nobody would call it anything else.
    tallest = max(across for _, across in extents)
    level = random.uniform(_MARGIN + tallest / 2, 1 - _MARGIN - tallest / 2)
    places, start = [], _MARGIN
    for (along, across), cut in zip(extents, cuts, strict=True):
        off = random.uniform(-0.08, 0.08)
        middle = min(max(level + off, _MARGIN + across / 2), 1 - _MARGIN - across / 2)
        places.append((start + cut, middle - across / 2))
        start += along + _GAP
    return places


def _left_of(random: Random, aspects: list[float], _: list[str]) -> Layout:
    sizes = [random.choice(list(SIZES)) for _ in aspects]
    extents = [_extent(random, SIZES[size], aspect) for size, aspect in zip(sizes, aspects, strict=True)]
    places = _along(random, extents)
    return sizes, [_at(x, y, *extent) for (x, y), extent in zip(places, extents, strict=True)]


def _above(random: Random, aspects: list[float], _: list[str]) -> Layout:
    sizes = [random.choice(list(SIZES)) for _ in aspects]
    extents = [_extent(random, SIZES[size], aspect) for size, aspect in zip(sizes, aspects, strict=True)]
    places = _along(random, [(height, width) for width, height in extents])
    return sizes, [_at(x, y, *extent) for (y, x), extent in zip(places, extents, strict=True)]


def _between(random: Random, aspects: list[float], _: list[str]) -> Layout:
    extents = [_extent(random, _IN_A_ROW, aspect) for aspect in aspects]
    left, middle, right = _along(random, [extents[1], extents[0], extents[2]])
    return ["small"] * 3, [_at(*place, *extent) for place, extent in zip((middle, left, right), extents, strict=True)]


def _on(random: Random, aspects: list[float], _: list[str]) -> Layout:
    sizes = [random.choice(list(SIZES)), "big"]
    (width, height), (below_width, below_height) = (
        _extent(random, SIZES[size], aspect) for size, aspect in zip(sizes, aspects, strict=True)
    )
    x = random.uniform(_MARGIN, 1 - _MARGIN - max(below_width, width))
    y = random.uniform(_MARGIN + height, 1 - _MARGIN - below_height)
    # The middle of the upper thing is well within the lower.
    middle = x + below_width * random.uniform(0.35, 0.65)
    middle = min(max(middle, _MARGIN + width / 2), 1 - _MARGIN - width / 2)
    return sizes, [_at(middle - width / 2, y - height + _OVERLAP, width, height), _at(x, y, below_width, below_height)]


def _inside(random: Random, aspects: list[float], kinds: list[str]) -> Layout:
    width, height = _extent(random, _CONTAINER, aspects[1])
    x, y = (random.uniform(_MARGIN, 1 - _MARGIN - side) for side in (width, height))
    free = CONTAINERS[kinds[1]] * min(width, height)
    inner_width, inner_height = _extent(random, (0.9 * free, free), aspects[0])
    inner = _at(x + (width - inner_width) / 2, y + (height - inner_height) / 2, inner_width, inner_height)
    return ["small", "big"], [inner, _at(x, y, width, height)]


_LAYOUTS = {
    ALONE: _alone, "left of": _left_of, "above": _above, "on": _on, "inside": _inside, "between": _between
}  # fmt: skip
