"""Moses tokens by stretches: the same as sacremoses gives for the whole text."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sacremoses import MosesTokenizer

from tests.thorough import examples
from xgpt_fairseq.text import moses
from xgpt_fairseq.text.moses import CachedMosesTokenizer
from xgpt_fairseq.text.vocabulary import normalize

SACREMOSES = MosesTokenizer(lang="en")
WORDS = CachedMosesTokenizer()  # one for all examples, so that what it remembers is put to use

# What the Moses rules speak of: dots, commas and apostrophes at all places, abbreviations that keep their dot (some
# only before a number), numbers, markup, letters that are not a to z, control characters.
CHARACTERS = "abstnx.,'`-0123?!()[]<>/&|@#$:;\"éßпд中½²€“”’…\x01\u0301\u200b"
PIECES = [
    "a", "the", "no", "no.", "mr.", "u.s.", "p.m.", "e.g.", "art.", "nr.", "pp.", "vs", "i", "i.", "...", "..", "'s",
    "s'", "'", "''", ".'", "it's", "o'neill's", "1990's", "'90s", "90's'", "1,000", "1,", ",1", "a,b", ",", "3.5", "5.",
    "5", "x-y", "--", "rock'n'roll", "can't.", "dotmulti", "naïve", "café.", "ça", "d'", "l'île", "(see", "p.)",
    "http://x.y/z?q=1,2", "&amp;", "<mask>", "</s>", "@-@", "日本", "\x01", "a\x02b", "ﬁ",
]  # fmt: skip


def plain(text: str) -> list[str]:
    return SACREMOSES.tokenize(normalize(text), escape=False)


@examples(200, max_examples=600)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(CHARACTERS, min_size=1, max_size=5)), max_size=9))
@example(["'", "a", "'"])
@example(["no.", "5"])
@example(["no.", "a", "5."])
@example(["it", "ends.'"])
def test_the_same_as_sacremoses(words: Sequence[str]) -> None:
    text = " ".join(words)
    assert WORDS(normalize(text)) == plain(text)


@examples(100, max_examples=300)
@given(st.text(max_size=30))
def test_the_same_for_any_text(text: str) -> None:
    assert WORDS(normalize(text)) == plain(text)


def test_the_same_for_real_captions(coco_mini: Path) -> None:
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text(encoding="utf-8"))["images"]
    texts = [sentence["raw"] for image in images for sentence in image["sentences"]]
    assert len(texts) > 2500
    assert [WORDS(normalize(text)) for text in texts] == [plain(text) for text in texts]


def test_tokens_are_split_once() -> None:
    seen = []

    def halves(token: str) -> list[str]:
        seen.append(token)
        return [f"{token[:1]}@@", token[1:]] if len(token) > 1 else [token]

    words = CachedMosesTokenizer(halves)
    expected = ["t@@", "he", "c@@", "at", "s@@", "at", ",", "t@@", "he", "c@@", "at", "."]
    assert words("the cat sat, the cat.") == expected
    assert words("the cat sat, the cat.") == expected
    assert seen == ["the", "cat", "sat", ",", "cat", "."]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moses, "CACHE_SIZE", 5)
    words = CachedMosesTokenizer()
    texts = [f"{'abcdefghijk'[number]}x is {number}, not {number + 1}." for number in range(10)]
    for _ in range(2):
        assert [words(text) for text in texts] == [plain(text) for text in texts]
        assert 0 < len(words._words) <= 5
        assert 0 < len(words._stretches) <= 5
    # and nothing long is kept
    long = "1" * 41
    words(f"a {long} b")
    assert not any(long in stretch for stretch in words._stretches)


def test_pickles() -> None:
    words = pickle.loads(pickle.dumps(WORDS))
    assert words("mr. smith's dog, no. 5") == plain("mr. smith's dog, no. 5")
