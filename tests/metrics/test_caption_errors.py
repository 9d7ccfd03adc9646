"""Words that nobody used, phrases that repeat, objects that are missed: by hand, and by plain rules."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.metrics.caption_errors import (
    FUNCTION_WORDS,
    missed_objects,
    repeated_phrases,
    summary,
    unused_words,
    word_spans,
    words,
)
from xgpt_fairseq.metrics.degeneration import has_repeat, words_of

PEOPLE = ["A man rides a brown horse.", "Someone on horseback."]


def cut(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


def test_words() -> None:
    assert words("A man's T-shirt, 2 x <b>!") == ["a", "man's", "t", "shirt", "2", "x", "b"]
    assert words("一只 cat猫") == ["一", "只", "cat", "猫"]
    assert words("") == []


@given(st.text("ab' .-9Z", max_size=20))
def test_words_are_those_of_the_log(text: str) -> None:
    """The log's share of captions that repeat words is by the same words."""
    assert words(text) == words_of(text)


def test_words_that_nobody_used() -> None:
    text = "A woman is riding the Horse on it."
    assert cut(text, unused_words(text, PEOPLE)) == ["woman", "riding"]
    assert unused_words("a man rides.", PEOPLE) == []
    assert unused_words(" ".join(FUNCTION_WORDS), PEOPLE) == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a kitchen with a kitchen with a kitchen", ["a kitchen with a kitchen with a kitchen"]),
        ("a man and a man.", ["a man", "a man"]),
        ("A red hat, a red Hat!", ["A red hat", "a red Hat"]),
        ("a man in a hat", []),
        ("no no no", ["no no no"]),
        ("", []),
    ],
)
def test_phrases_that_repeat(text: str, phrases: list[str]) -> None:
    assert cut(text, repeated_phrases(text)) == phrases


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12))
def test_every_pair_that_comes_twice_is_in_a_phrase_and_no_other(said: list[str]) -> None:
    text, pairs = " ".join(said), list(pairwise(said))
    inside = {place for start, end in repeated_phrases(text) for place in range(start, end)}
    for number, pair in enumerate(pairs):
        start, end = word_spans(text)[number][0], word_spans(text)[number + 1][1]
        if pairs.count(pair) > 1:
            assert set(range(start, end)) <= inside
    assert bool(inside) == has_repeat(said)


def test_objects_that_are_missed() -> None:
    labels = ["tennis racket", "horse", "dog", "dog", "", "glass", "bus,coach", "man"]
    missed = missed_objects("Two glasses, a racket and a coach.", labels, PEOPLE)
    assert missed == [("horse", True), ("man", True), ("dog", False)]
    assert missed_objects("dogs and horses", ["dog", "horse"]) == []
    assert len(missed_objects("", [f"thing{n}" for n in range(50)])) == 8


def test_summary() -> None:
    found = summary(["a man and a man.", "a cat"], [["A man."], ["The cat."]])
    assert found == (3.5, 4, 0.5, 0.0)
    assert summary(["a dog"], [["a cat"]]).unused == 1
    assert summary(["a dog"], []).unused is None
