"""Signs of degenerate captions."""

from __future__ import annotations

import pytest

from xgpt_fairseq.metrics.degeneration import degeneration, ends_badly, has_repeat, mean_words, words_of


@pytest.mark.parametrize(
    ("caption", "repeats", "bad"),
    [
        ("A kitchen with a kitchen with a stove.", True, False),
        ("A man in a", False, True),
        ("a dog, a cat, a dog", True, False),
        ("a dog and a cat", False, False),
        ("The dog's bed is next to the dog's bed.", True, False),
        ("", False, False),
        ("of", False, True),
    ],
)
def test_repeats_and_bad_ends(caption: str, repeats: bool, bad: bool) -> None:
    words = words_of(caption)
    assert (has_repeat(words), ends_badly(words)) == (repeats, bad)


def test_shares() -> None:
    assert degeneration(["a man on a", "a man", "no no no", ""]) == (0.25, 0.25)


def test_length_is_in_words() -> None:
    assert mean_words(["A dog's ball.", "a man and a dog", ""]) == pytest.approx(8 / 3)
