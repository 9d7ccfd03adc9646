"""The program prepare_text.py as users run it."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.cli import prepare_text, text_encoding
from xgpt_fairseq.cli.text_encoding import EncodeBlock
from xgpt_fairseq.data.directory import TextDirectory
from xgpt_fairseq.text import readers as text_readers
from xgpt_fairseq.text.readers import Block
from xgpt_fairseq.text.vocabulary import Vocabulary, learn_vocabulary


def read_split(data: Path, split: str) -> list[tuple[int, ...]]:
    sentences = TextDirectory(data).sentences(split)
    return [tuple(sentences[index].tolist()) for index in range(len(sentences))]


TINY_WORDS = ["a", "red", "green", "cat", "dog", "horse", "sits", "sleeps", "near", "the", "house", "in", "field", "on"]


def corpus(lines: int = 400) -> list[str]:
    """Lines about animals: some come more than once, some only differ in case or spaces, some are blank or long."""
    random = np.random.default_rng(3)
    words = [*TINY_WORDS, "old", "man's", ",", ".", "3"]
    texts = []
    for number in range(lines):
        length = 90 if number % 50 == 7 else int(random.integers(1, 9))
        texts.append(" ".join(random.choice(words, length)))
        if number % 9 == 4:
            texts.append(["", "   ", "\u0001"][number % 3])
        if number % 7 == 5:
            texts.append(f"  {texts[int(random.integers(len(texts)))].upper()}\t")
    return texts


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{line}\n" for line in corpus()), encoding="utf-8")
    return path


@pytest.fixture
def prepare(call_program: Callable[..., Any], text: Path, tiny_vocabulary: Path, tmp_path: Path) -> Callable[..., Any]:
    """prepare(*options): the text to tmp_path/data, options coming last and winning."""

    def call(*options: object, inputs: object = None) -> Any:
        arguments = ["--input", *([text] if inputs is None else inputs), "--vocabulary", tiny_vocabulary]
        arguments += ["--output", tmp_path / "data", "--valid-lines", 30]
        return call_program(prepare_text.main, *arguments, *options)

    return call


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ten lines a block instead of thousands."""
    monkeypatch.setattr(text_readers, "BLOCK_BYTES", 300)


def plain(vocabulary: Vocabulary, lines: list[str], valid_lines: int, max_tokens: int = 60) -> dict[str, Any]:
    """What must come out, in the plainest way: all lines in memory."""
    eos = vocabulary.dictionary.eos()
    encoded: list[tuple[tuple[int, ...], ...]] = []
    for line in lines:
        ids = vocabulary.encode_ids(line).tolist()
        if ids:
            count = math.ceil(len(ids) / (max_tokens - 1))
            ends = [len(ids) * number // count for number in range(count + 1)]
            encoded.append(tuple((*ids[begin:end], eos) for begin, end in itertools.pairwise(ends)))

    def key(line: tuple[tuple[int, ...], ...]) -> bytes:
        data = np.array([token for sentence in line for token in sentence], dtype=np.uint16).tobytes()
        return hashlib.blake2b(data, digest_size=8).digest()[::-1] + data  # little-endian number, then the tokens

    valid = sorted(set(encoded), key=key)[:valid_lines]
    train = [line for line in encoded if line not in valid]
    return {
        "train": Counter(sentence for line in train for sentence in line),
        "valid": [sentence for line in valid for sentence in line],
        "copies": len(encoded) - len(train) - len(valid),
        "blank": len(lines) - len(encoded),
        "cut": sum(len(line) > 1 for line in encoded),
        "tokens": sum(len(sentence) - 1 for line in encoded for sentence in line),
        "unknown": sum(sentence.count(vocabulary.dictionary.unk()) for line in encoded for sentence in line),
    }


# What is written


def test_as_a_command(tmp_path: Path, text: Path, tiny_vocabulary: Path, tiny_captions: Path) -> None:
    command = [python(), prepare_text.__file__, "--input", text, tiny_captions, "--vocabulary", tiny_vocabulary]
    command += ["--output", "new/data", "--valid-lines", "30", "--workers", "2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    captions = [
        sentence["raw"]
        for image in json.loads(tiny_captions.read_text())["images"]
        if image["split"] in ("train", "restval")
        for sentence in image["sentences"]
    ]
    lines = corpus() + captions
    expected = plain(Vocabulary(tiny_vocabulary), lines, 30)
    assert min(expected[name] for name in ("copies", "blank", "cut", "unknown")) > 0  # all of it is put to the test
    data = tmp_path / "new" / "data"
    directory = TextDirectory(data)
    assert Counter(read_split(data, "train")) == expected["train"]
    assert read_split(data, "valid") == expected["valid"]
    assert directory.sentences("train")[0].dtype.is_signed
    assert not expected["train"].keys() & set(expected["valid"])
    counts = {"train": expected["train"].elements(), "valid": expected["valid"]}
    tokens = {split: sum(map(len, sentences)) for split, sentences in counts.items()}
    share = expected["unknown"] / expected["tokens"]
    assert done.stdout.splitlines() == [
        f"train: {expected['train'].total():,} sentences, {tokens['train']:,} tokens",
        f"valid: {len(expected['valid'])} sentences, {tokens['valid']:,} tokens",
        f"of {len(lines)} lines {expected['blank']} are blank, {expected['cut']} cut to at most 60 tokens, "
        f"30 held out for validation, {expected['copies']} left out as copies of those",
        f"unknown: {expected['unknown']:,} of {expected['tokens']:,} tokens ({share:.3%})",
        "written to new/data",
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data"]
    names = {f"{split}.text.{kind}" for split in ("train", "valid") for kind in ("bin", "idx")}
    assert contents(data).keys() == names | {"dataset.json", "dict.txt", "bpe.codes", "vocabulary.json"}


def test_training_keeps_the_order_of_the_text(prepare: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"a red cat {'sits ' * (number % 7)}{'on ' * (number // 7)}\n" for number in range(150)))
    assert prepare("--valid-lines", 20, inputs=[path]).status == 0
    vocabulary = TextDirectory(tmp_path / "data").vocabulary
    ids = [
        (*vocabulary.encode_ids(line).tolist(), vocabulary.dictionary.eos()) for line in path.read_text().splitlines()
    ]
    train = [ids.index(sentence) for sentence in read_split(tmp_path / "data", "train")]
    assert len(train) == 130
    # but for those that were held out for a while
    assert sum(now < before for before, now in itertools.pairwise(train)) < 50
    # and validation comes from all over the text
    valid = [ids.index(sentence) for sentence in read_split(tmp_path / "data", "valid")]
    for begin in (0, 50, 100):
        assert sum(begin <= line < begin + 50 for line in valid) >= 3


def test_description(prepare: Callable[..., Any], text: Path, tiny_vocabulary: Path, tmp_path: Path) -> None:
    assert prepare().status == 0
    data = tmp_path / "data"
    expected = plain(Vocabulary(tiny_vocabulary), corpus(), 30)
    train = list(expected["train"].elements())
    splits = {}
    for split, sentences in {"train": train, "valid": expected["valid"]}.items():
        splits[split] = {
            "sentences": len(sentences),
            "tokens": sum(map(len, sentences)),
            "bin_bytes": (data / f"{split}.text.bin").stat().st_size,
            "idx_bytes": (data / f"{split}.text.idx").stat().st_size,
        }
        assert splits[split]["bin_bytes"] == 2 * splits[split]["tokens"]
    assert json.loads((data / "dataset.json").read_text()) == {
        "version": 1,
        "kind": "text",
        "splits": splits,
        "max_tokens": 60,
        "dictionary_crc32": f"{zlib.crc32((data / 'dict.txt').read_bytes()):08x}",
        "made_by": {
            "program": "prepare_text.py",
            "input": ["text.txt"],
            "lines": len(corpus()),
            "blank": expected["blank"],
            "cut_to_max_tokens": expected["cut"],
            "valid_lines": 30,
            "copies_of_valid_lines": expected["copies"],
            "unknown_tokens": expected["unknown"],
        },
    }


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_and_any_blocks_write_the_same(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    assert prepare().status == 0
    expected = contents(tmp_path / "data")
    for block_bytes in (1, 300):
        monkeypatch.setattr(text_readers, "BLOCK_BYTES", block_bytes)
        assert prepare("--workers", workers, "--overwrite").status == 0
        assert contents(tmp_path / "data") == expected


def test_compressed_or_from_a_pipe_it_is_the_same(
    prepare: Callable[..., Any], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare().status == 0
    expected = contents(tmp_path / "data")
    expected.pop("dataset.json")
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(text.read_bytes()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    for name in (tmp_path / "text.txt.gz", "-"):
        assert prepare("--overwrite", inputs=[name]).status == 0
        found = contents(tmp_path / "data")
        assert json.loads(found.pop("dataset.json"))["made_by"]["input"] == [Path(name).name]
        assert found == expected


def test_inputs_add_up(prepare: Callable[..., Any], text: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("a horse sleeps on the table")  # no line break at its end
    assert prepare(inputs=[text, tmp_path / "more.txt", "--input", tmp_path / "more.txt"]).status == 0
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["made_by"]["lines"] == len(corpus()) + 2


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(2, 12))
def test_long_lines_are_cut_evenly(tiny_vocabulary: Path, lengths: list[int], max_tokens: int) -> None:
    vocabulary = Vocabulary(tiny_vocabulary)
    lines = [" ".join(["a", "red", "cat"][number % 3] for number in range(length)) for length in lengths]
    data = "".join(f"{line}\n" for line in lines).encode()
    encoded = EncodeBlock(vocabulary, max_tokens)(Block(Path("text.txt"), 1, data, len(data)))
    sentences = np.split(encoded.tokens, np.cumsum(encoded.sizes))[:-1]
    assert encoded.blank == lengths.count(0)
    assert len(encoded.pieces) == len(lines) - encoded.blank
    assert len(sentences) == encoded.pieces.sum()
    rest = iter(sentences)
    for line, pieces in zip(filter(None, lines), encoded.pieces.tolist(), strict=True):
        mine = [next(rest).tolist() for _ in range(pieces)]
        assert all(sentence[-1] == vocabulary.dictionary.eos() for sentence in mine)
        assert max(map(len, mine)) <= max_tokens
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
        ids = vocabulary.encode_ids(line).tolist()
        assert [token for sentence in mine for token in sentence[:-1]] == ids
        assert pieces == -(-len(ids) // (max_tokens - 1))


def test_max_tokens(prepare: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path) -> None:
    assert prepare("--max-tokens", 5).status == 0
    expected = plain(Vocabulary(tiny_vocabulary), corpus(), 30, max_tokens=5)
    assert Counter(read_split(tmp_path / "data", "train")) == expected["train"]
    assert read_split(tmp_path / "data", "valid") == expected["valid"]
    assert TextDirectory(tmp_path / "data").sentences("train").sizes.max() == 5


def test_without_validation(prepare: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path) -> None:
    assert prepare("--valid-lines", 0).status == 0
    directory = TextDirectory(tmp_path / "data")
    assert directory.has_split("train")
    assert not directory.has_split("valid")
    eos = directory.vocabulary.dictionary.eos()
    lines = [(*ids, eos) for line in corpus() if (ids := directory.vocabulary.encode_ids(line).tolist())]
    short = [ids for ids in lines if len(ids) <= 60]
    assert [sentence for sentence in read_split(tmp_path / "data", "train") if sentence in short] == short


def test_sentencepiece(prepare: Callable[..., Any], tmp_path: Path) -> None:
    learn_vocabulary(corpus(), tmp_path / "spm", bpe="sentencepiece", symbols=60)
    assert prepare("--vocabulary", tmp_path / "spm").status == 0
    expected = plain(Vocabulary(tmp_path / "spm"), corpus(), 30)
    assert Counter(read_split(tmp_path / "data", "train")) == expected["train"]
    assert read_split(tmp_path / "data", "valid") == expected["valid"]


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_many_unknown_tokens_are_warned_of(
    prepare: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path, share: float
) -> None:
    lines = ["a red cat sits", "a green cat sits", "a blue dog sleeps", *["the horse is near the cat in a field"] * 100]
    lines[3] = "ж " * round(share * 900)
    (tmp_path / "text.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    done = prepare("--valid-lines", 1, inputs=[tmp_path / "text.txt"])
    assert done.status == 0
    expected = plain(Vocabulary(tiny_vocabulary), lines, 1)
    assert 0.8 * share < expected["unknown"] / expected["tokens"] < 1.2 * share
    warning = f"of the tokens are unknown to {tiny_vocabulary}, more than 1%: was it learned from text like this"
    assert (warning in done.stderr) == (share > 0.01)


def test_overwrite(prepare: Callable[..., Any], tmp_path: Path) -> None:
    assert prepare().status == 0
    (tmp_path / "data" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    done = prepare("--valid-lines", 0)
    assert done.status == 1
    assert done.error == f"{tmp_path / 'data'} exists; pass --overwrite to replace it"
    assert contents(tmp_path) == before
    assert prepare("--valid-lines", 0, "--overwrite").status == 0
    assert contents(tmp_path).keys() == before.keys() - {"data/valid.text.bin", "data/valid.text.idx"}
    assert (tmp_path / "data" / "notes.txt").read_text() == "mine"


def test_captions_are_not_replaced(prepare: Callable[..., Any], tiny_data: Path) -> None:
    before = contents(tiny_data)
    done = prepare("--output", tiny_data, "--overwrite")
    assert done.status == 1
    assert done.error == f"{tiny_data} is a data directory of kind 'captions', not 'text': it is not replaced"
    assert contents(tiny_data) == before


# Errors


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (["none.txt"], [], "--input none.txt does not exist"),
        (["good.txt", "none.txt"], [], "--input none.txt does not exist"),
        (["good.txt", "-", "-"], [], "named twice"),
        (["latin1.txt"], [], "latin1.txt is not UTF-8 text: line 2, invalid continuation byte"),
        (["cut.gz"], [], "cut.gz cannot be read: Compressed file ended"),
        (["other.json"], [], "other.json: not a caption file of a known format"),
        (["empty.txt"], [], "there is no text in the input"),
        (["empty.txt"], ["--valid-lines", "0"], "there is no text in the input"),
        (["test.jsonl"], [], "there is no text in the input: captions are left out"),
        (
            ["good.txt"],
            ["--valid-lines", "2"],
            "the text is too small for --valid-lines 2: of its 3 lines 2 different ones can be held out, which leaves "
            "1 for training, and at least as many must be left; pass --valid-lines 0 for no validation split",
        ),
        (["good.txt"], [], "of its 3 lines 3 different ones can be held out, which leaves 0 for training"),
        (["same.txt"], ["--valid-lines", "2"], "of its 120 lines 1 different ones"),
        (["same.txt"], ["--valid-lines", "1"], "which leaves 0 for training, and at least as many must be left; pass "
         "--valid-lines 2 or so"),
        (["good.txt"], ["--max-tokens", "1"], "--max-tokens must be at least 2"),
        (["good.txt"], ["--valid-lines", "-1"], "--valid-lines must be 0 (none) or more, got -1"),
        (["good.txt"], ["--vocabulary", "none"], "none is not a vocabulary folder"),
    ],
)  # fmt: skip
def test_errors_leave_nothing_behind(
    prepare: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inputs: list[str],
    options: list[str],
    message: str,
    workers: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.txt").write_text("a cat\na dog\n\na horse\n")
    (tmp_path / "same.txt").write_text("a cat\n" * 120)
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "latin1.txt").write_bytes("gut\nein Kätzchen\n".encode("latin1"))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:-500])
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "test.jsonl").write_text('{"image": "1.jpg", "caption": "A dog."}\n')
    before = contents(tmp_path)
    done = prepare(*options, "--workers", workers, inputs=inputs)
    assert done.status == 1
    assert message in done.error
    assert contents(tmp_path) == before
    assert not (tmp_path / ".data.partial").exists()


def test_too_small_a_text_does_not_stand_in_the_way(
    prepare: Callable[..., Any], small_blocks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(text_encoding, "JOURNAL_SECONDS", 0.0)
    assert "the text is too small" in prepare("--valid-lines", 300).error
    assert list(tmp_path.iterdir()) == []
    assert prepare("--valid-lines", 50).status == 0


def test_an_error_of_the_command_is_one_line(tmp_path: Path, tiny_vocabulary: Path) -> None:
    command = [python(), prepare_text.__file__, "--input", "none.txt", "--vocabulary", tiny_vocabulary]
    command += ["--output", tmp_path / "data"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: --input none.txt does not exist\n"
    assert list(tmp_path.iterdir()) == []
