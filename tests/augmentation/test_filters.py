"""Which generated captions are kept: rules as properties, and the counts that must add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.augmentation.filters import REASONS, Rules, Selection, ngrams, repeats_phrase, words
from xgpt_fairseq.text.vocabulary import Vocabulary

RULES = Rules(key=lambda text: " ".join(words(text)), longest=12, repeat_ngram=3)
few_words = st.lists(st.sampled_from(["a", "red", "cat", "sits"]), max_size=9)
captions = few_words.map(" ".join)


def test_words_are_normalised_and_without_punctuation() -> None:
    assert words("A man's T-shirt,  “Ｂlue”!") == ["a", "man's", "t", "shirt", "blue"]
    assert words(" .,-! ") == []


@given(st.lists(st.integers(0, 3)), st.integers(1, 5))
def test_ngrams_are_all_slices(tokens: list[int], n: int) -> None:
    texts = [str(token) for token in tokens]
    expected = [tuple(texts[i : i + n]) for i in range(len(texts)) if i + n <= len(texts)]
    assert ngrams(texts, n) == expected


def test_the_paper_s_negative_example() -> None:
    """Table 5: the first says something wrong, which nobody can see in the text; the second repeats a phrase."""
    assert not repeats_phrase("A man in a black t shirt and black shorts is putting up a white chair.", 3)
    repeated = "A man in a black t-shirt and black t shirt works on a folding chair."
    assert repeats_phrase(repeated, 3)
    assert not repeats_phrase(repeated, 4) and not repeats_phrase(repeated, 0)


def test_text_without_spaces() -> None:
    horses = "一个男人骑着一匹马和一匹马和一匹马"
    assert words(horses) == list(horses) and words("穿T恤的人。") == ["穿", "t", "恤", "的", "人"]
    assert repeats_phrase(horses, 3) and not repeats_phrase(horses, 4)
    assert not repeats_phrase("穿黑色的衣服和黑色的裤子", 3)
    assert repeats_phrase("คนในเสื้อสีดำและคนในเสื้อสีดำ", 3) and not repeats_phrase("คนใส่เสื้อสีดำและกางเกงสีดำ", 3)
    cut = "一个 男人 骑着 一匹 马 和 一匹 马"  # into words
    assert words(cut) == cut.split() and repeats_phrase(cut, 2) and not repeats_phrase(cut, 3)


@given(few_words, few_words, st.integers(1, 4))
def test_a_phrase_said_twice_is_found_and_nothing_else(before: list[str], between: list[str], n: int) -> None:
    phrase = ["on", "top", "of", "it"][:n]
    once = [*before, *phrase]
    assert repeats_phrase(" ".join([*once, *between, *phrase]), n)
    places = [i for i in range(len(once) - n + 1) for j in range(i) if once[i : i + n] == once[j : j + n]]
    assert repeats_phrase(" ".join(once), n) == bool(places)


@given(st.lists(captions, max_size=4), st.lists(captions, max_size=30), st.integers(0, 5))
def test_every_caption_is_counted_once_and_what_is_kept_is_new(own: list[str], offered: list[str], wanted: int) -> None:
    selection = Selection(own, wanted, RULES)
    for text in offered:
        selection.offer(text, len(text.split()))
    assert selection.drawn == len(offered) == len(selection.kept) + selection.dropped.total() + selection.surplus
    assert set(selection.dropped) <= set(REASONS)
    assert selection.missing == wanted - len(selection.kept) >= 0
    keys = [RULES.key(text) for text in selection.kept]
    assert len(set(keys)) == len(keys) and not set(keys) & {RULES.key(text) for text in own}
    assert all(words(text) and not repeats_phrase(text, 3) for text in selection.kept)
    good = {text for text in offered if text and not repeats_phrase(text, 3)} - set(own)
    assert len(selection.kept) + selection.surplus == len(good)
    assert selection.kept == [text for text in dict.fromkeys(offered) if text in good][:wanted]


@pytest.mark.parametrize(
    ("text", "tokens", "reason"),
    [
        (" . ", 1, "empty"),
        ("a dog", 12, "too_long"),  # stopped by the search's limit, though its text is short
        ("a b c d e f g h i j k l", 5, "too_long"),
        ("a red cat and a red cat", 7, "repeated_phrase"),
        ("The CAT , sleeps", 3, "copy_of_original"),
        ("a  dog.", 3, "copy_of_generated"),
    ],
)
def test_reasons(text: str, tokens: int, reason: str) -> None:
    selection = Selection(["the cat sleeps."], 3, RULES)
    selection.offer("A dog", 2)
    selection.offer(text, tokens)
    assert selection.kept == ["A dog"] and selection.dropped == {reason: 1}


def test_generated_captions_are_read_through_the_data_s_vocabulary(tiny_data: Path) -> None:
    vocabulary = Vocabulary(tiny_data)
    rules = Rules(key=vocabulary.encode, longest=60, repeat_ngram=3)
    selection = Selection(["A red  cat sits in a field."], 2, rules)
    for text in ("a red cat sits in a field .", "a blue cat sits."):
        selection.offer(text, 5)
    assert selection.kept == ["a blue cat sits."] and selection.dropped == {"copy_of_original": 1}
