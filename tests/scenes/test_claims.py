"""Captions of scenes, read back by hand: what they claim, and whether it is true."""

from __future__ import annotations

from typing import Any

import pytest

from xgpt_fairseq.scenes.claims import Claims, Verdict, judge, read_claims


@pytest.mark.parametrize(
    ("caption", "things", "relation", "related"),
    [
        ("A small red ball to the left of a blue house.",
         [("small", "red", "ball"), (None, "blue", "house")], "left of", (0, 1)),
        ("there is a black duck right of a yellow hoop at night",
         [(None, "black", "bird"), (None, "yellow", "ring")], "left of", (1, 0)),
        ("a red cup on the left and a large mug on the right",
         [(None, "red", "cup"), ("big", None, "cup")], "left of", (0, 1)),
        ("a white star that is beneath a tree", [(None, "white", "star"), (None, None, "tree")], "above", (1, 0)),
        ("A blue box with a red fish on top in a meadow .",
         [(None, "blue", "box"), (None, "red", "fish")], "on", (1, 0)),
        ("a red cup on a striped background", [(None, "red", "cup")], None, ()),
        ("on a blue table", [(None, "blue", "table")], None, ()),
        ("a green ring around a green fish", [(None, "green", "ring"), (None, "green", "fish")], "inside", (1, 0)),
        ("a red car in between a blue car and a tree",
         [(None, "red", "car"), (None, "blue", "car"), (None, None, "tree")], "between", (0, 1, 2)),
        ("a red car , a box and a tree in a row",
         [(None, "red", "car"), (None, None, "box"), (None, None, "tree")], "between", (1, 0, 2)),
        ("a red red is the a", [], None, ()),
        ("the carpet is boxed", [], None, ()),
    ],
)  # fmt: skip
def test_claims(caption: str, things: list[Any], relation: str | None, related: tuple[int, ...]) -> None:
    assert read_claims(caption) == Claims(tuple(things), relation, related)


FACTS = {"things": [{"kind": "ball", "colour": "red"}, {"kind": "house", "colour": "blue"}], "relation": "left of"}
ROW = {"things": [{"kind": kind, "colour": "red"} for kind in ("ball", "house", "car")], "relation": "between"}


@pytest.mark.parametrize(
    ("caption", "facts", "kinds", "colours", "relation"),
    [
        ("a red ball to the left of a blue house", FACTS, True, True, True),
        ("a blue house to the right of a red ball", FACTS, True, True, True),
        ("a blue house to the left of a red ball", FACTS, True, True, False),
        ("a blue house beside a red ball", FACTS, True, True, True),
        ("a red ball above a blue house", FACTS, True, True, False),
        ("a blue ball to the left of a red house", FACTS, True, False, True),
        ("a ball to the left of a blue house", FACTS, True, False, True),
        ("a red ball to the left of a blue car", FACTS, False, False, False),
        ("a red ball and a blue house", FACTS, True, True, None),
        ("a red ball", FACTS, False, False, None),
        ("a red ball between a red house and a red car", ROW, True, True, True),
        ("a red ball between a red car and a red house", ROW, True, True, True),
        ("a red car between a red ball and a red house", ROW, True, True, False),
        ("a red house to the left of a red ball", ROW, False, False, True),
        ("a red car to the left of a red ball", ROW, False, False, False),
        ("a red house next to a red car", ROW, False, False, False),
        ("a red ball next to a red car", ROW, False, False, True),
        ("a red ball above a red house", {**FACTS, "relation": "on"}, True, False, True),
    ],
)
def test_verdicts(caption: str, facts: dict[str, Any], kinds: bool, colours: bool, relation: bool | None) -> None:
    assert judge(read_claims(caption), facts) == Verdict(kinds, colours, relation)
