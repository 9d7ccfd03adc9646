"""Words keep the marks of their letters."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.augmentation import filters
from xgpt_fairseq.metrics import caption_errors
from xgpt_fairseq.metrics.degeneration import has_repeat, words_of
from xgpt_fairseq.text.marks import is_mark
from xgpt_fairseq.text.vocabulary import normalize

# Every program that counts words: they must agree on what one is
WORDS = {"log": words_of, "augment": filters.words, "gallery": caption_errors.words}


@pytest.mark.parametrize("program", WORDS)
@pytest.mark.parametrize(
    "text",
    [
        "लड़का लड़की के साथ खेल रहा है",  # vowel signs, a nukta
        "একটি ছেলে বল খেলছে", "ஒரு நாய் ஓடுகிறது", "ශ්\u200dරී ලංකා", "می\u200cخواهم بروم", "קָטָן יֶלֶד",
        "un cafe\u0301 noir",
    ],
)  # fmt: skip
def test_a_word_keeps_its_marks(program: str, text: str) -> None:
    expected = unicodedata.normalize("NFKC", text).split() if program == "augment" else text.split()
    assert WORDS[program](f"{text}।") == expected
    assert not has_repeat(WORDS[program](text))


@pytest.mark.parametrize("program", WORDS)
def test_a_mark_alone_is_no_word(program: str) -> None:
    assert WORDS[program]("a \u2764\ufe0f dog, \u0301 \u200d") == ["a", "dog"]  # a heart, as an emoji
    assert is_mark("\ufe0f") and is_mark("ा") and not is_mark("a") and not is_mark("क")


@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_words_in_ascii(text: str) -> None:
    assert words_of(text) == re.findall(r"[\w']+", text.lower())
    assert filters.words(text) == re.findall(r"\w+(?:['’]\w+)*", normalize(text))
