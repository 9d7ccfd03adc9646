"""Words of token ids, against the text that the vocabulary makes of them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from xgpt_fairseq.metrics.word_ids import END, WordIds
from xgpt_fairseq.text.vocabulary import Vocabulary, learn_vocabulary

TEXTS = [
    "a red cat sits in a field.", "the grey horse is standing on the table.", "a man, near an old man's house", ".",
    "dog", "it rains: cats & dogs!", "a blueish-green catdog", "a red cat sits in a field",
]  # fmt: skip


@pytest.fixture(scope="module", params=["subword_nmt", "sentencepiece"])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("words") / request.param
    learn_vocabulary(TEXTS * 20, path, bpe=request.param, symbols=60)
    return Vocabulary(path)


def padded(vocabulary: Vocabulary, texts: list[str]) -> np.ndarray:
    ids = [[*vocabulary.encode_list(text), vocabulary.dictionary.eos()] for text in texts]
    tokens = np.full((len(ids), max(map(len, ids)) + 2), vocabulary.dictionary.pad())
    for row, each in zip(tokens, ids, strict=True):
        row[: len(each)] = each
    return tokens


def test_equal_words_have_equal_ids_and_punctuation_has_none(vocabulary: Vocabulary) -> None:
    tokens = padded(vocabulary, TEXTS)
    words, lengths = WordIds(vocabulary)(tokens)
    assert lengths.sum() == len(words)
    # what a reader sees: pieces of the vocabulary joined, without the tokens that are punctuation
    known: dict[int, str] = {}
    for of_text, ids in zip(tokens, np.split(words, np.cumsum(lengths)[:-1]), strict=True):
        pieces = vocabulary.dictionary.string(of_text[of_text != vocabulary.dictionary.pad()].tolist()).split()
        text = " ".join(pieces)
        if vocabulary.bpe == "subword_nmt":
            expected = text.replace("@@ ", "").split()
        else:
            expected = re.sub(r"([.,:!&'-])", r" \1 ", text.replace(" ", "").replace("▁", " ")).split()
        expected = [word for word in expected if word not in {".", ",", ":", "!", "&", "&amp;", "'", "-"}]
        assert [known.setdefault(number, word) for number, word in zip(ids.tolist(), expected, strict=True)] == expected
    assert len(set(known.values())) == len(known)


def test_a_word_does_not_depend_on_its_place_or_the_padding(vocabulary: Vocabulary) -> None:
    read = WordIds(vocabulary)
    [cat] = read(padded(vocabulary, ["cat"]))[0].tolist()
    words, _ = read(padded(vocabulary, ["a red cat", "cat cat", "the horse is standing by the old house"]))
    assert words.tolist().count(cat) == 3


def test_the_end_is_a_word_where_it_is_asked_for(vocabulary: Vocabulary) -> None:
    words, lengths = WordIds(vocabulary)(
        padded(vocabulary, ["dog", ".", "dog"]), with_end=np.array([True, True, False])
    )
    assert lengths.tolist() == [2, 1, 1]
    assert words[1] == words[2] == END and words[0] == words[3] != END
