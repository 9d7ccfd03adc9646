"""Subwords put together to words, with their places in the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.text.vocabulary import Vocabulary, learn_vocabulary
from xgpt_fairseq.text.word_pieces import words_of_pieces


def test_subword_nmt() -> None:
    words = words_of_pieces(
        ["a", "rid@@", "ing", "man", "'s", "bi@@", "ke", "."], "a riding man's bike.", "subword_nmt"
    )
    assert [(word.text, word.first, word.last) for word in words] == [
        ("a", 0, 1), ("riding", 1, 3), ("man", 3, 4), ("'s", 4, 5), ("bike", 5, 7), (".", 7, 8),
    ]  # fmt: skip
    assert [(word.start, word.end) for word in words] == [(0, 1), (2, 8), (9, 12), (12, 14), (15, 19), (19, 20)]


def test_sentencepiece() -> None:
    words = words_of_pieces(["▁a", "▁rid", "ing", "▁man", "."], "a riding man.", "sentencepiece")
    assert [word.text for word in words] == ["a", "riding", "man."]
    assert [(word.first, word.last) for word in words] == [(0, 1), (1, 3), (3, 5)]
    chinese = words_of_pieces(["▁", "一只", "猫", "在", "桌上"], "一只猫在桌上", "sentencepiece")
    assert [(word.text, word.start) for word in chinese] == [("一只", 0), ("猫", 2), ("在", 3), ("桌上", 4)]


def test_a_word_that_the_text_spells_otherwise() -> None:
    words = words_of_pieces(["a", "&quot;", "cat"], 'a " cat', "subword_nmt")
    assert [(word.text, word.start, word.end) for word in words] == [("a", 0, 1), ("&quot;", 1, 1), ("cat", 4, 7)]


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> list[Vocabulary]:
    text = ["a man's riding a well-known bike.", 'two cats, one dog "sleep" on the table.', "it's 3.5 m, isn't it?"]
    folder: Path = tmp_path_factory.mktemp("vocabularies")
    return [learn_vocabulary(text, folder / bpe, bpe=bpe, symbols=60) for bpe in ("subword_nmt", "sentencepiece")]


SAID = ["a", "man's", "riding", "well-known", "bikes", ",", ".", "cats", "3.5", "isn't", "it", "?", '"sleep"']


@given(st.lists(st.sampled_from(SAID), min_size=1))
def test_the_words_are_the_text(vocabularies: list[Vocabulary], said: list[str]) -> None:
    for vocabulary in vocabularies:
        pieces = vocabulary.encode(" ".join(said)).split()
        text = vocabulary.decode(" ".join(pieces))
        words = words_of_pieces(pieces, text, vocabulary.bpe)
        assert [word.first for word in words] == sorted({word.first for word in words})
        found = "".join(text[word.start : word.end] for word in words)
        assert found == "".join(text.split())
