"""Vocabulary folders: text to ids and back, what learning promises, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary
from hypothesis import assume, given
from hypothesis import strategies as st
from sacremoses import MosesTokenizer
from subword_nmt.apply_bpe import BPE

from tests.folders import contents
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text.vocabulary import MASK, Vocabulary, learn_vocabulary, normalize

SENTENCES = [
    "A man's dog doesn't like the cat; it runs away!",
    'He said "hello, world" to the children.',
    "Is it 3.5 metres (or so) long?",
    "A red-and-white bus, two cars & a café.",
    "The women's umbrellas aren't open...",
    "  Two   zebras\tgraze.\n",
]
BOTH = pytest.mark.parametrize("bpe", ["subword_nmt", "sentencepiece"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A vocabulary of each kind, learned from `SENTENCES`."""
    root = tmp_path_factory.mktemp("vocabularies")
    return {bpe: learn(root / bpe, bpe).path for bpe in ("subword_nmt", "sentencepiece")}


def learn(path: Path, bpe: str, workers: int = 1) -> Vocabulary:
    return learn_vocabulary(SENTENCES * 3, path, bpe=bpe, symbols=80, workers=workers)


@BOTH
@pytest.mark.parametrize("text", SENTENCES)
def test_text_comes_back_in_lower_case(folders: dict[str, Path], bpe: str, text: str) -> None:
    vocabulary = Vocabulary(folders[bpe])
    ids = vocabulary.encode_ids(text)
    assert ids.dtype == np.int64
    assert vocabulary.dictionary.unk() not in ids
    assert vocabulary.dictionary.eos() not in ids
    # a learned split: fewer pieces than letters, more than words
    assert len(text.split()) < len(ids) < len(text)
    pieces = " ".join(vocabulary.dictionary[i] for i in ids)
    assert pieces == vocabulary.encode(text)
    assert vocabulary.decode(pieces) == " ".join(text.lower().split())


@BOTH
def test_generated_ids_become_text_by_fairseqs_way(folders: dict[str, Path], bpe: str) -> None:
    vocabulary = Vocabulary(folders[bpe])
    ids = [*vocabulary.encode_ids(SENTENCES[0]).tolist(), vocabulary.dictionary.eos()]
    string = vocabulary.dictionary.string(np.array(ids))
    assert vocabulary.decode(string) == SENTENCES[0].lower()


def test_normalisation() -> None:
    # a ligature, a full-width letter, an accent on its own, a no-break space
    assert normalize(" ﬁre\u00a0Ａ cafe\u0301 \n") == "fire a café"


@BOTH
@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text(folders: dict[str, Path], bpe: str, text: str) -> None:
    vocabulary = Vocabulary(folders[bpe])
    ids = vocabulary.encode_ids(text)
    assert ids.shape == (0,)
    assert ids.dtype == np.int64
    assert vocabulary.decode("") == ""


@BOTH
def test_special_symbols_in_a_text_are_never_special(folders: dict[str, Path], bpe: str) -> None:
    vocabulary = Vocabulary(folders[bpe])
    dictionary = vocabulary.dictionary
    special = {dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.index(MASK)}
    for text in ["</s>", "<pad>", "<s>", "<mask>", "a </s> b <pad> c <s> d <mask> e", "a</s>b<mask>"]:
        ids = vocabulary.encode_ids(text)
        assert len(ids) > 0
        assert not special & set(ids.tolist()), text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_ids_of_earlier_vocabularies_are_those_of_the_libraries(earlier_vocabulary: Path, text: str) -> None:
    _check_plain(earlier_vocabulary, [text])


@pytest.fixture(scope="module")
def earlier_vocabulary(tiny_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of version 1."""
    folder = tmp_path_factory.mktemp("earlier") / "v"
    shutil.copytree(tiny_vocabulary, folder)
    description = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps({**description, "version": 1}))
    return folder


EUROPEAN = st.characters(max_codepoint=0x1FFF, categories=["L", "N", "P", "S", "Zs"]).filter(
    lambda c: c != "<" and (c < "\u0590" or c >= "\u1e00")
)


@given(st.text(EUROPEAN, max_size=40))
def test_european_text_has_the_ids_of_the_libraries(tiny_vocabulary: Path, text: str) -> None:
    assume(all(unicodedata.category(c)[0] != "M" for c in normalize(text)))  # of some letters no small form is one
    _check_plain(tiny_vocabulary, [text])


def test_ids_of_real_captions_are_those_of_the_libraries(coco_mini: Path, tmp_path: Path) -> None:
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text(encoding="utf-8"))["images"]
    texts = [sentence["raw"] for image in images for sentence in image["sentences"]]
    learn_vocabulary(texts[:1000], tmp_path / "v", bpe="subword_nmt", symbols=500)
    _check_plain(tmp_path / "v", texts)


def _check_plain(folder: Path, texts: list[str]) -> None:
    """sacremoses and subword-nmt on whole lines, ids by fairseq's dictionary."""
    vocabulary = Vocabulary(folder)
    tokenizer = MosesTokenizer(lang="en")
    with open(folder / "bpe.codes", encoding="utf-8") as codes:
        bpe = BPE(codes)
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    for text in texts:
        tokens = tokenizer.tokenize(normalize(text), return_str=True, escape=False)
        pieces = bpe.process_line(tokens).split()
        assert vocabulary.encode(text).split() == pieces
        ids = [dictionary.index(piece) for piece in pieces]
        assert dictionary.index(MASK) not in ids
        assert vocabulary.encode_ids(text).tolist() == vocabulary.encode_list(text) == ids


@pytest.mark.parametrize(
    ("bpe", "dictionary", "ids"), [("subword_nmt", 519248082, 2246309435), ("sentencepiece", 2802477743, 828232544)]
)
def test_european_text_is_tokenized_as_ever(tmp_path: Path, bpe: str, dictionary: int, ids: int) -> None:
    """Checksums of what was learned of this text before vocabularies had format version 2."""
    texts = [*SENTENCES, "Größe – “naïve” 20 °C, 5 €; Ελληνικά; Привет, мир!"]
    vocabulary = learn_vocabulary(texts * 3, tmp_path / "v", bpe=bpe, symbols=110)
    assert zlib.crc32((tmp_path / "v" / "dict.txt").read_bytes()) == dictionary
    assert zlib.crc32(str([vocabulary.encode_ids(text).tolist() for text in texts]).encode()) == ids


def test_memory_does_not_grow_with_the_text(tiny_vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xgpt_fairseq.text.moses.CACHE_SIZE", 10)
    vocabulary = Vocabulary(tiny_vocabulary)
    expected = Vocabulary(tiny_vocabulary)
    for number in range(100):
        word = "".join(chr(ord("a") + int(digit)) for digit in str(number + 10))
        for text in (f"x{word} is {word}y", f"{word}'s house, no. {number}!"):
            assert vocabulary.encode(text) == expected.encode(text)
    assert len(vocabulary._splitter._bpe.cache) <= 11


class _Words:
    """A splitter that splits at spaces alone: the worst case, in which a text can spell a special symbol."""

    def split(self, text: str) -> list[str]:
        return text.split()

    def join(self, pieces: str) -> str:
        return pieces


@given(st.lists(st.sampled_from(["</s>", "<pad>", "<s>", "<unk>", "<mask>", "a", "no-such-piece"]), max_size=8))
def test_a_piece_that_spells_a_special_symbol_is_unknown(tiny_vocabulary: Path, pieces: list[str]) -> None:
    vocabulary = Vocabulary(tiny_vocabulary)
    vocabulary._splitter = _Words()
    dictionary = vocabulary.dictionary
    expected = [dictionary.index("a") if piece == "a" else dictionary.unk() for piece in pieces]
    assert vocabulary.encode_ids(" ".join(pieces)).tolist() == expected


@BOTH
def test_dictionary(folders: dict[str, Path], bpe: str) -> None:
    dictionary = Dictionary.load(str(folders[bpe] / "dict.txt"))
    assert len(dictionary) % 8 == 0
    assert MASK in dictionary.indices
    assert dictionary.index(MASK) >= dictionary.nspecial
    assert Vocabulary(folders[bpe]).dictionary.symbols == dictionary.symbols
    counts = dictionary.count[dictionary.nspecial : dictionary.index(MASK)]
    assert counts == sorted(counts, reverse=True)


@BOTH
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_text_gives_the_same_folder(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe: str, workers: int
) -> None:
    monkeypatch.setattr("xgpt_fairseq.io.workers.ITEMS_PER_CHUNK", 4)  # several pieces for each worker
    again = learn(tmp_path / "again", bpe, workers)
    assert contents(again.path) == contents(folders[bpe])
    # and nothing is left beside it
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_the_order_of_the_sentences_does_not_matter(folders: dict[str, Path], tmp_path: Path) -> None:
    again = learn_vocabulary(SENTENCES[::-1] * 3, tmp_path / "again", bpe="subword_nmt", symbols=80)
    assert contents(again.path) == contents(folders["subword_nmt"])


def test_pieces_counted_as_words_come(tmp_path: Path) -> None:
    vocabulary = learn_vocabulary(["ab ab ab", "ab cd", "cd"], tmp_path / "v", bpe="subword_nmt", symbols=1)
    lines = (vocabulary.path / "dict.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["ab 4", "c@@ 2", "d 2"]


def test_threshold(tmp_path: Path) -> None:
    text = ["ab ab ab ab cd cd"]
    vocabulary = learn_vocabulary(text, tmp_path / "v", bpe="subword_nmt", symbols=1, threshold=3)
    assert {"ab", "c@@", "d"} & vocabulary.dictionary.indices.keys() == {"ab"}
    with pytest.raises(DataError, match="--threshold needs --bpe subword_nmt"):
        learn_vocabulary(text, tmp_path / "s", bpe="sentencepiece", symbols=8, threshold=3)


@BOTH
def test_pickles(folders: dict[str, Path], bpe: str) -> None:
    before = Vocabulary(folders[bpe])
    before.encode_ids(SENTENCES[0])
    after = pickle.loads(pickle.dumps(before))
    for text in SENTENCES:
        assert after.encode_ids(text).tolist() == before.encode_ids(text).tolist()


@BOTH
def test_a_copy_reads_by_itself(folders: dict[str, Path], tmp_path: Path, bpe: str) -> None:
    Vocabulary(folders[bpe]).copy_to(tmp_path)
    assert contents(tmp_path) == contents(folders[bpe])
    Vocabulary(tmp_path).copy_to(tmp_path)  # onto itself: nothing happens
    assert contents(tmp_path) == contents(folders[bpe])


@BOTH
@pytest.mark.parametrize("text", [[], ["", "  "]])
def test_no_text(tmp_path: Path, bpe: str, text: list[str]) -> None:
    with pytest.raises(DataError, match="there is no text"):
        learn_vocabulary(text, tmp_path / "v", bpe=bpe, symbols=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bpe", "sentences", "symbols"),
    [
        ("subword_nmt", ["a b", "c"], 0),  # nothing to merge
        ("subword_nmt", ["ab ab", "c"], 1),
        ("sentencepiece", ["ab ab"], 7),  # <unk>, ▁, a, b, and all merges of ▁ab
    ],
)
def test_a_text_that_gives_no_more_symbols(tmp_path: Path, bpe: str, sentences: list[str], symbols: int) -> None:
    vocabulary = learn_vocabulary(sentences, tmp_path / "v", bpe=bpe, symbols=100_000)
    assert vocabulary.symbols == symbols
    for sentence in sentences:
        ids = vocabulary.encode_ids(sentence)
        assert vocabulary.dictionary.unk() not in ids
        assert vocabulary.decode(" ".join(vocabulary.dictionary[i] for i in ids)) == normalize(sentence)
    assert Vocabulary(tmp_path / "v").symbols == vocabulary.symbols


def test_a_size_that_sentencepiece_cannot_reach(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sentencepiece cannot learn 2 symbols.*smaller than required") as caught:
        learn_vocabulary(SENTENCES, tmp_path / "v", bpe="sentencepiece", symbols=2)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@BOTH
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_input_passes_through(tmp_path: Path, bpe: str, workers: int) -> None:
    def sentences() -> Iterator[str]:
        yield "a good line"
        raise DataError("line 2 of the file is not text")

    with pytest.raises(DataError, match=r"^line 2 of the file is not text$"):
        learn_vocabulary(sentences(), tmp_path / "v", bpe=bpe, symbols=10, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_vocabulary_that_was_there(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "v"
    shutil.copytree(folders["subword_nmt"], path)
    with pytest.raises(DataError):
        learn_vocabulary([], path, bpe="subword_nmt", symbols=10)
    assert contents(path) == contents(folders["subword_nmt"])


def test_learning_again_replaces_the_vocabulary_and_nothing_else(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "v"
    shutil.copytree(folders["subword_nmt"], path)
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    learn(path, "sentencepiece")
    assert contents(path) == {**contents(folders["sentencepiece"]), "notes.txt": b"mine"}


# What is refused


def _describe(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "vocabulary.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def _without_mask(folder: Path) -> None:
    lines = (folder / "dict.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "dict.txt").write_text("".join(line for line in lines if MASK not in line), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "is not a vocabulary folder: it has no vocabulary.json"),
        (lambda folder: (folder / "vocabulary.json").unlink(), "is not a vocabulary folder"),
        (lambda folder: (folder / "vocabulary.json").write_text("{"), "vocabulary.json is not JSON"),
        (lambda folder: (folder / "vocabulary.json").write_text("[]"), "holds no JSON object"),
        (_describe(version=3), "has format version 3, this xgpt_fairseq reads versions up to 2: upgrade"),
        (_describe(version=None), "has format version None"),
        (_describe(bpe="wordpiece"), "bpe is 'wordpiece'; known are subword_nmt, sentencepiece"),
        (lambda folder: (folder / "dict.txt").unlink(), "dict.txt is missing"),
        (lambda folder: (folder / "bpe.codes").unlink(), "bpe.codes is missing"),
        (_without_mask, "dict.txt has no symbol <mask>; make it with"),
    ],
)
def test_refused(tiny_vocabulary: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "v"
    shutil.copytree(tiny_vocabulary, folder)
    assert Vocabulary(folder).dictionary.index(MASK) > 0
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        _ = Vocabulary(folder).dictionary
    assert str(folder) in str(caught.value)
