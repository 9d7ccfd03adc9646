"""Scenes in the words of the web: one alt text an image, often incomplete, full of other things, at times wrong."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from xgpt_fairseq.scenes.captions import NOUNS, PHRASES, REVERSED_PHRASES, SIZE_WORDS, statement
from xgpt_fairseq.scenes.facts import ALONE, BACKGROUNDS, RELATIONS, Scene, Thing, choose

# Where the noisy scenes differ: things alone, more backgrounds, clutter.
WEB_RELATIONS = {**RELATIONS, ALONE: 0.2}
WEB_BACKGROUNDS = {**BACKGROUNDS, "checks": 1.5, "bricks": 1, "sunset": 1.5, "snow": 1.5}
WEB_CLUTTER: dict[str | None, float] = {None: 5, "confetti": 1, "bubbles": 1, "scribble": 1, "watermark": 1}

# Style → how often. All but `wrong` say nothing untrue of the things.
STYLES = {
    "sentence": 0.30,  # as a careful person would say it
    "terse": 0.35,  # all facts, no articles: "red ball left of blue house"
    "vague": 0.13,  # facts are missing: "a ball and a blue house"
    "tags": 0.07,  # "red ball, blue house"
    "short": 0.05,  # "ball"
    "wrong": 0.10,  # true of another picture
}

_BEFORE = {
    "stock photo of": 3, "illustration of": 3, "drawing of": 2, "vector:": 1, "clipart -": 1.5, "cute": 1.5,
    "vintage": 1, "image may contain:": 1, "close up of": 1, "funny": 0.5, "photo by person:": 1, "how to draw": 1,
}  # fmt: skip
_AFTER = {
    "stock photo": 3, "for sale": 2, "royalty free": 2, "free clipart": 2, "vector illustration": 2, "wallpaper": 1.5,
    "- poster by person": 1, "in lisbon, portugal": 1, "in vermont": 1, "| buy online": 1, "gift for kids": 1,
    "canon eos 80d": 0.7, "nikon d750": 0.7, "during the festival": 1, "{number}": 1.5, "img_{number}": 1,
    "from the collection of person": 0.7,
}  # fmt: skip
_CASES = {"lower": 0.6, "sentence": 0.25, "title": 0.15}
_NOISE = {"before": 0.2, "after": 0.35}


@dataclass(frozen=True)
class AltText:
    text: str
    style: str


def alt_text(scene: Scene, other: Scene, random: Random) -> AltText:
    """What stands beside *scene* on some page; *other* is the scene that a wrong text describes."""
    style = choose(random, STYLES)
    if style == "wrong":
        text = _WORDINGS[choose(random, {"sentence": 3, "terse": 4, "vague": 1})](other, random)
    else:
        text = _WORDINGS[style](scene, random)
    # "drawing of there is …" nobody writes, not even on the web
    if not text.startswith(("there ", "we ", "the ")) and random.random() < _NOISE["before"]:
        text = f"{choose(random, _BEFORE)} {text}"
    if random.random() < _NOISE["after"]:
        text = f"{text} {choose(random, _AFTER).format(number=random.randint(100, 9999))}"
    return AltText(_cased(text, random), style)


def _cased(text: str, random: Random) -> str:
    case = choose(random, _CASES)
    if case == "title":
        return text.title()
    return text[0].upper() + text[1:] if case == "sentence" else text


def _name(thing: Thing, random: Random, *, size: float = 0.1, colour: float = 1.0) -> str:
    """ "red ball", without article; size and colour are named with these probabilities."""
    words = [choose(random, NOUNS[thing.kind])]
    if random.random() < colour:
        words.insert(0, thing.colour)
    if random.random() < size:
        words.insert(0, choose(random, SIZE_WORDS[thing.size]))
    return " ".join(words)


def _sentence(scene: Scene, random: Random) -> str:
    if scene.relation == ALONE:
        return f"a {_name(scene.things[0], random)}"
    return statement(scene, random)


def _terse(scene: Scene, random: Random) -> str:
    names = [_name(thing, random) for thing in scene.things]
    if scene.relation == ALONE:
        return names[0]
    phrases = PHRASES
    if scene.relation in REVERSED_PHRASES and random.random() < 0.3:
        phrases, names = REVERSED_PHRASES, names[::-1]
    phrase = choose(random, phrases[scene.relation]).removeprefix("to the ").removeprefix("on the ")
    return f"{names[0]} {phrase} {' and '.join(names[1:])}"


def _vague(scene: Scene, random: Random) -> str:
    names = [f"a {_name(thing, random, size=0.05, colour=0.4)}" for thing in scene.things]
    random.shuffle(names)
    return " and ".join(names[: random.choice([1, 2, 2])])


def _tags(scene: Scene, random: Random) -> str:
    names = [_name(thing, random, size=0) for thing in scene.things]
    random.shuffle(names)
    return ", ".join([*names, *random.sample(["toy", "art", "cartoon", "design", "icon", "kids"], 2)])


def _short(scene: Scene, random: Random) -> str:
    return _name(random.choice(scene.things), random, size=0, colour=0.3)


_WORDINGS = {"sentence": _sentence, "terse": _terse, "vague": _vague, "tags": _tags, "short": _short}
