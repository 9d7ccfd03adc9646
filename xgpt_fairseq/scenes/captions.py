"""Scenes in words, as several careful people would describe them: always kinds, colours and relation, sometimes more.

Everybody says what everybody sees, but not in the same words. Words and turns of phrase have natural frequencies: a few
are common and many are rare, so that two captions of a scene often agree, and seldom wholly.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from xgpt_fairseq.scenes.facts import Scene, Thing, choose

CAPTIONS_PER_IMAGE = 5

# Kind → what it is called.
NOUNS: dict[str, Mapping[str, float]] = {
    "ball": {"ball": 1}, "star": {"star": 1}, "box": {"box": 0.85, "chest": 0.15}, "table": {"table": 1},
    "ring": {"ring": 0.9, "hoop": 0.1}, "house": {"house": 1}, "tree": {"tree": 1}, "flower": {"flower": 1},
    "car": {"car": 1}, "cup": {"cup": 0.7, "mug": 0.3}, "fish": {"fish": 1}, "bird": {"bird": 0.9, "duck": 0.1},
}  # fmt: skip

SIZE_WORDS: dict[str, Mapping[str, float]] = {
    "small": {"small": 0.7, "little": 0.25, "tiny": 0.05},
    "big": {"big": 0.6, "large": 0.4},
}

# What stands between "A" and "B" where `things[0]` is A, and where it is B.
PHRASES: dict[str, Mapping[str, float]] = {
    "left of": {"to the left of": 0.6, "on the left of": 0.15, "left of": 0.12, "next to": 0.08, "beside": 0.05},
    "above": {"above": 0.8, "over": 0.2},
    "on": {"on": 0.5, "on top of": 0.4, "standing on": 0.1},
    "inside": {"inside": 0.7, "in": 0.2, "in the middle of": 0.1},
    "between": {"between": 0.85, "in between": 0.15},
}
REVERSED_PHRASES: dict[str, Mapping[str, float]] = {
    "left of": {"to the right of": 0.6, "on the right of": 0.15, "right of": 0.12, "next to": 0.08, "beside": 0.05},
    "above": {"below": 0.6, "under": 0.25, "beneath": 0.15},
    "on": {"below": 0.5, "under": 0.5},
    "inside": {"around": 1},
}

SENTENCES = {
    "{a} {phrase} {b}": 0.44,
    "{a} is {phrase} {b}": 0.2,
    "there is {a} {phrase} {b}": 0.14,
    "a picture of {a} {phrase} {b}": 0.08,
    "we can see {a} {phrase} {b}": 0.05,
    "the picture shows {a} {phrase} {b}": 0.05,
    "{a} that is {phrase} {b}": 0.04,
}
# Said instead, by the relation; {first} is `things[0]`.
OTHER_SENTENCES: dict[str, Mapping[str, float]] = {
    "left of": {
        "{first} on the left and {second} on the right": 0.6,
        "{first} with {second} to its right": 0.2,
        "{second} with {first} to its left": 0.2,
    },
    "above": {
        "{first} at the top and {second} at the bottom": 0.5,
        "{first} with {second} below it": 0.25,
        "{second} with {first} above it": 0.25,
    },
    "on": {"{second} with {first} on it": 0.6, "{second} with {first} on top": 0.4},
    "inside": {"{second} with {first} inside": 0.5, "{second} with {first} in it": 0.5},
    "between": {"{second}, {first} and {third} in a row": 0.5, "{second}, {first} and {third} side by side": 0.5},
}

# Background → how often it is mentioned, and how.
BACKGROUND_PHRASES: dict[str, tuple[float, Mapping[str, float]]] = {
    "plain": (0.1, {"on a plain background": 1}),
    "gradient": (0.1, {"on a shaded background": 1}),
    "speckles": (0.25, {"on a speckled background": 1}),
    "stripes": (0.4, {"on a striped background": 0.8, "in front of stripes": 0.2}),
    "dots": (0.4, {"on a dotted background": 0.7, "on a polka dot background": 0.3}),
    "meadow": (0.4, {"in a meadow": 0.6, "in the grass": 0.25, "in the countryside": 0.15}),
    "night": (0.4, {"at night": 0.6, "under a night sky": 0.25, "under the stars": 0.15}),
    "sea": (0.4, {"at sea": 0.4, "by the sea": 0.35, "in front of the sea": 0.25}),
}

_OTHER = 0.2  # how often one of OTHER_SENTENCES
_SIZE = {"differ": 0.42, "same": 0.18}  # how often the size of a thing, where sizes differ and where they do not
_IN_FRONT = 0.1  # how often the background, where it is mentioned, comes first

# How often the second thing is named first. The eye goes from left to right and from top to bottom, and a small thing
# is placed beside a big one rather than the other way round.
_REVERSED = {"as read": 0.16, "smaller second": 0.7, "on": 0.06, "inside": 0.1, "between": 0.0}


def captions(scene: Scene, random: Random) -> list[str]:
    """`CAPTIONS_PER_IMAGE` true captions of *scene*, no two alike."""
    found: dict[str, None] = {}
    while len(found) < CAPTIONS_PER_IMAGE:
        found[caption(scene, random)] = None
    return list(found)


def caption(scene: Scene, random: Random) -> str:
    """One true sentence, with a capital letter and a full stop."""
    text = statement(scene, random)
    often, phrases = BACKGROUND_PHRASES[scene.background]
    if random.random() < often:
        where = choose(random, phrases)
        text = f"{where}, {text}" if random.random() < _IN_FRONT else f"{text} {where}"
    return f"{text[0].upper()}{text[1:]}."


def statement(scene: Scene, random: Random) -> str:
    """What relates the things of *scene*, without the background: "a red ball to the left of a blue house"."""
    differ = len({thing.size for thing in scene.things}) > 1
    names = [noun_phrase(thing, random, _SIZE["differ" if differ else "same"]) for thing in scene.things]
    if random.random() < _OTHER:
        pattern = choose(random, OTHER_SENTENCES[scene.relation])
        return pattern.format(**dict(zip(("first", "second", "third"), names, strict=False)))
    if random.random() < _REVERSED[_order(scene)]:
        phrases, a, b = REVERSED_PHRASES[scene.relation], names[1], names[0]
    else:
        phrases, a, b = PHRASES[scene.relation], names[0], " and ".join(names[1:])
    return choose(random, SENTENCES).format(a=a, phrase=choose(random, phrases), b=b)


def _order(scene: Scene) -> str:
    if scene.relation in _REVERSED:
        return scene.relation
    first, second = (thing.size for thing in scene.things)
    return "smaller second" if (first, second) == ("big", "small") else "as read"


def noun_phrase(thing: Thing, random: Random, size: float) -> str:
    """ "a small red ball"; the size is named with probability *size*."""
    words = [thing.colour, choose(random, NOUNS[thing.kind])]
    if random.random() < size:
        words.insert(0, choose(random, SIZE_WORDS[thing.size]))
    return f"a {' '.join(words)}"
