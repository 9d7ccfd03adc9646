"""Text from tokens: sacremoses' and the vocabulary's own, without these."""

from __future__ import annotations

import inspect
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sacremoses import MosesDetokenizer

from tests.thorough import examples
from xgpt_fairseq.text import fragile as product_fragile
from xgpt_fairseq.text.moses import CachedMosesTokenizer
from xgpt_fairseq.text.vocabulary import Vocabulary, learn_vocabulary, normalize
from xgpt_runtime import fragile, moses
from xgpt_runtime.errors import DataError
from xgpt_runtime.words import Words

SACREMOSES = MosesDetokenizer(lang="en")
PIECES = [
    "a", "the", "cat", "dogs", "'s", "'", "''", '"', "`", "``", "„", "“", "”", "n't", "'t", "'90s", ",", ".", "...",
    "!", "?", "(", ")", "[", "]", "$", "€", "£", "-", "@-@", "&", "%", "5", "3.5", "¿", "¡", "日本", "語", "한국",
    "한", "é", "'é", "жук", "'ж", "jones", "\\", "{", "}", ";", ":", "/", "<mask>", "👍", "ɐ", "«", "»",
]  # fmt: skip


# Others never reach the detokenizer: `Words` keeps them from it, as `Vocabulary` does.
ROBUST = [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if not (fragile._is_fragile(character) or character.isspace() or unicodedata.category(character) == "Cs")
]


@examples(200, max_examples=800)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(ROBUST, min_size=1, max_size=3)), max_size=12))
@example(["jones", "'", "house"])
@example(['"', "a", '"', '"', "b"])
def test_detokenized_as_by_sacremoses(words: list[str]) -> None:
    assert moses.detokenize(words) == SACREMOSES.detokenize(words, unescape=False)


def test_every_character_as_by_sacremoses() -> None:
    """Between words, and behind an apostrophe."""
    assert len(ROBUST) > 2000
    for character in ROBUST:
        for words in (["a", character, "b"], ["a", f"'{character}", "b"]):
            assert moses.detokenize(words) == SACREMOSES.detokenize(words, unescape=False), character


def test_real_captions(coco5k: Path) -> None:
    tokenize = CachedMosesTokenizer()
    images = json.loads((coco5k / "dataset_coco5k.json").read_text(encoding="utf-8"))["images"]
    texts = [sentence["raw"] for image in images[:2000] for sentence in image["sentences"]]
    for text in texts:
        words = tokenize(normalize(text))
        assert moses.detokenize(words) == SACREMOSES.detokenize(words, unescape=False)


def test_fragile_parts_are_found_by_the_same_code() -> None:
    assert inspect.getsource(fragile) == inspect.getsource(product_fragile)


def words_of(vocabulary: Vocabulary, folder: Path) -> Words:
    from xgpt_fairseq.onnx_export.folder import words_of as described

    (folder / "words.json").write_text(json.dumps(described(vocabulary)), encoding="utf-8")
    return Words(folder)


@pytest.mark.parametrize("bpe", ["subword_nmt", "sentencepiece"])
def test_tokens_are_the_text_of_the_vocabulary(bpe: str, tmp_path: Path) -> None:
    texts = ["a man's dog.", "the jones' house, 日本 cafés 👍🏽", '"yes", he said', "an i̇stanbul <mask> view"]
    made = learn_vocabulary(texts * 3, tmp_path / "vocabulary", bpe=bpe, symbols=60)
    words = words_of(made, tmp_path)
    for text in [*texts, "dogs said: a view of the house"]:
        ids = made.encode_list(text)
        expected = made.decode(" ".join(made.dictionary.symbols[token] for token in ids))
        assert words.text([*ids, words.eos]) == expected


def test_damaged_words_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a captioner of xgpt-export --onnx: it has no words.json"):
        Words(tmp_path)
    (tmp_path / "words.json").write_text('{"version": 1, "symbols": ["a"')
    with pytest.raises(DataError, match=r"words.json is damaged: JSONDecodeError"):
        Words(tmp_path)
    (tmp_path / "words.json").write_text('{"version": 2}')
    with pytest.raises(DataError, match=r"words.json has version 2, this xgpt-runtime reads versions up to 1: upgrade"):
        Words(tmp_path)
    (tmp_path / "words.json").write_text('{"version": 1, "symbols": 5}')
    with pytest.raises(DataError, match=r"words.json is damaged: symbols is 5"):
        Words(tmp_path)
