"""Which texts have no spaces between words."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.augmentation import filters
from xgpt_fairseq.metrics import caption_errors
from xgpt_fairseq.metrics.degeneration import has_repeat, words_of
from xgpt_fairseq.text.scripts import count_spacing, is_mark, is_unspaced
from xgpt_fairseq.text.vocabulary import normalize


@pytest.mark.parametrize("character", "狗々ひカーｶทิ่ກကཀ𠮷")
def test_scripts_without_spaces(character: str) -> None:
    assert is_unspaced(character)


@pytest.mark.parametrize("character", "aé1 .。，한कж🐶\n")
def test_others(character: str) -> None:
    assert not is_unspaced(character)


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


@pytest.mark.parametrize(
    ("text", "share", "separated"),
    [
        ("A dog runs.", 0.0, False),
        ("", 0.0, False),
        ("一只棕色的狗", 1.0, False),
        ("狗", 1.0, False),
        ("一只 棕色 的 狗", 1.0, True),
        ("หมากำลังวิ่ง บนหญ้าสีเขียวในสวน", 1.0, False),  # Thai has spaces between phrases
        ("หมา กำลัง วิ่ง บน หญ้า", 1.0, True),
        ("개가 잔디 위를 달린다", 0.0, False),
        ("ab狗狗", 0.5, False),
    ],
)
def test_spacing(text: str, share: float, separated: bool) -> None:
    spacing = count_spacing([text])
    assert (spacing.share, spacing.is_separated) == (share, separated)
    assert spacing.joins_words == (share > 0.5 and not separated)
    assert count_spacing([text, text, "A dog."]).is_separated == separated
