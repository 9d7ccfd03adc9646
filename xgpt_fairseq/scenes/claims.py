"""What a caption says of a scene, and whether it is true: the words of captions.py, read back.

    claims = read_claims("A small red ball to the left of a blue house.")
    judge(claims, image["facts"])          # of dataset_scenes.json

It reads captions that a model has made, too: what it does not understand claims nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xgpt_fairseq.scenes.captions import NOUNS, SIZE_WORDS
from xgpt_fairseq.scenes.facts import COLOURS

_KIND_OF = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
_SIZE_OF = {word: size for size, words in SIZE_WORDS.items() for word in words}


_THING = re.compile(
    rf"\b(?:(?:an?|the) )?(?:({'|'.join(_SIZE_OF)}) )?(?:({'|'.join(COLOURS)}) )?({'|'.join(_KIND_OF)})\b"
)

# In a caption whose things are #0, #1, …: pattern, relation, and which group is which of its things.
_IS = r"(?:(?:that )?is )?"
_PATTERNS = [
    (rf"#(\d) {_IS}(?:to the |on the )?left of #(\d)", "left of", (1, 2)),
    (rf"#(\d) {_IS}(?:to the |on the )?right of #(\d)", "left of", (2, 1)),
    (r"#(\d) on the left and #(\d) on the right", "left of", (1, 2)),
    (r"#(\d) with #(\d) to its right", "left of", (1, 2)),
    (r"#(\d) with #(\d) to its left", "left of", (2, 1)),
    (rf"#(\d) {_IS}(?:next to|beside) #(\d)", "beside", (1, 2)),
    (rf"#(\d) {_IS}(?:above|over) #(\d)", "above", (1, 2)),
    (rf"#(\d) {_IS}(?:below|under|beneath) #(\d)", "above", (2, 1)),
    (r"#(\d) at the top and #(\d) at the bottom", "above", (1, 2)),
    (r"#(\d) with #(\d) below it", "above", (1, 2)),
    (r"#(\d) with #(\d) above it", "above", (2, 1)),
    (rf"#(\d) {_IS}(?:standing )?on (?:top of )?#(\d)", "on", (1, 2)),
    (r"#(\d) with #(\d) on (?:it|top)\b", "on", (2, 1)),
    (rf"#(\d) {_IS}(?:inside|in|in the middle of) #(\d)", "inside", (1, 2)),
    (rf"#(\d) {_IS}around #(\d)", "inside", (2, 1)),
    (r"#(\d) with #(\d) (?:inside|in it)\b", "inside", (2, 1)),
    (rf"#(\d) {_IS}(?:in )?between #(\d) and #(\d)", "between", (1, 2, 3)),
    (r"#(\d), #(\d) and #(\d) (?:in a row|side by side)", "between", (2, 1, 3)),
]


@dataclass(frozen=True)
class Claims:
    """What a caption says.

    Attributes:
        things: (size, colour, kind) in the order of the caption; a size or colour that it does not name is None.
        relation: one of facts.py's relations, or `beside`.
        related: places in *things*, in the relation's order.
    """

    things: tuple[tuple[str | None, str | None, str], ...]
    relation: str | None = None
    related: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether a caption names all things of the scene and no other, all with their colours, and a true relation.

    Attributes:
        relation: None where the caption claims none.
    """

    kinds: bool
    colours: bool
    relation: bool | None


def read_claims(caption: str) -> Claims:
    """What *caption* says."""
    things: list[tuple[str | None, str | None, str]] = []

    def replace(match: re.Match[str]) -> str:
        size, colour, noun = match.groups()
        things.append((_SIZE_OF.get(size), colour, _KIND_OF[noun]))
        return f"#{len(things) - 1}"

    # A comma stands beside a word, whether the caption is tokenized or not.
    text = re.sub(r"\s+", " ", re.sub(r"\s*,", ",", caption.lower()))
    text = _THING.sub(replace, text)
    for pattern, relation, groups in _PATTERNS:
        match = re.search(pattern, text)
        if match is not None:
            return Claims(tuple(things), relation, tuple(int(match[group]) for group in groups))
    return Claims(tuple(things))


def judge(claims: Claims, facts: Mapping[str, Any]) -> Verdict:
    """Compare *claims* with the `facts` of an image in the JSON of xgpt-draw-scenes."""
    colours = {thing["kind"]: thing["colour"] for thing in facts["things"]}
    kinds = [kind for _, _, kind in claims.things]
    relation = None
    if claims.relation is not None:
        relation = _holds(claims.relation, [kinds[place] for place in claims.related], facts)
    return Verdict(
        kinds=sorted(kinds) == sorted(colours),
        colours=sorted(kinds) == sorted(colours) and all(colours[kind] == c for _, c, kind in claims.things),
        relation=relation,
    )


def _holds(relation: str, kinds: list[str], facts: Mapping[str, Any]) -> bool:
    true, order = facts["relation"], [thing["kind"] for thing in facts["things"]]
    if true == "between" and relation != "between":
        # Three in a row: each is left of those that follow.
        row = [order[1], order[0], order[2]]
        known = set(kinds) <= set(row) and relation in ("left of", "beside")
        apart = row.index(kinds[1]) - row.index(kinds[0]) if known else 0
        return apart > 0 if relation == "left of" else abs(apart) == 1
    if true == "between":
        return kinds[0] == order[0] and set(kinds) == set(order)
    if relation == "beside":
        return true == "left of" and set(kinds) == set(order)
    # What stands on a thing is also above it.
    return kinds == order and (relation == true or (relation, true) == ("above", "on"))
