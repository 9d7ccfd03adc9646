"""The program learn_bpe.py as users run it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.cli import learn_bpe
from xgpt_fairseq.text.vocabulary import Vocabulary


def test_from_captions_and_text(tmp_path: Path, tiny_captions: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Zebras graze.\n\n  \nA zoo.\n", encoding="utf-8")
    command = [python(), learn_bpe.__file__, "--input", str(tiny_captions), str(text)]
    command += ["--output", str(tmp_path / "vocabulary"), "--symbols", "50", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    vocabulary = Vocabulary(tmp_path / "vocabulary")
    assert done.stdout == f"{tmp_path / 'vocabulary'}: {len(vocabulary.dictionary)} symbols (subword_nmt)\n"
    merges = (vocabulary.path / "bpe.codes").read_text(encoding="utf-8").splitlines()[1:]
    assert len(merges) == 50
    images = json.loads(tiny_captions.read_text())["images"]
    texts = [s["raw"] for i in images if i["split"] in ("train", "restval") for s in i["sentences"]]
    for sentence in [*texts, "Zebras graze.", "A zoo."]:
        assert vocabulary.dictionary.unk() not in vocabulary.encode_ids(sentence), sentence
    assert vocabulary.dictionary.unk() in vocabulary.encode_ids("x")
    description = json.loads((vocabulary.path / "vocabulary.json").read_text())
    assert (description["bpe"], description["tokenizer"], description["symbols"]) == ("subword_nmt", "moses", 50)


def test_validation_and_test_captions_are_not_seen(tmp_path: Path, call_program: Callable[..., Any]) -> None:
    words = {"train": "ab", "restval": "cd", "val": "ef", "test": "gh"}
    images = [
        {"cocoid": number, "split": split, "sentences": [{"raw": f"{word} {word}"}]}
        for number, (split, word) in enumerate(words.items())
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    done = call_program(
        learn_bpe.main, "--input", tmp_path / "dataset.json", "--output", tmp_path / "v", "--symbols", 9
    )
    assert done.status == 0, done.stderr
    symbols = set(Vocabulary(tmp_path / "v").dictionary.indices)
    assert {"ab", "cd"} <= symbols
    assert not {"ef", "gh", "e@@", "f", "g@@", "h"} & symbols


def test_sentencepiece(tmp_path: Path, tiny_captions: Path, call_program: Callable[..., Any]) -> None:
    arguments = ["--input", tiny_captions, "--bpe", "sentencepiece", "--symbols", 60, "--output", tmp_path / "v"]
    done = call_program(learn_bpe.main, *arguments)
    assert done.status == 0, done.stderr
    vocabulary = Vocabulary(tmp_path / "v")
    assert vocabulary.bpe == "sentencepiece"
    pieces = vocabulary.encode("A red cat sits in a field.")
    assert vocabulary.decode(pieces) == "a red cat sits in a field."
    # 60 pieces less <unk>, fairseq's 4 specials, <mask>, padded to a multiple of 8
    assert len(vocabulary.dictionary) == 64


@pytest.mark.parametrize(
    ("text", "bpe", "reason"),
    [
        ("A dog runs.\nTwo cats.\n", "subword_nmt", "0% of the letters are of scripts without spaces"),
        ("一只棕色的狗在草地上奔跑。\n两个孩子\n", "sentencepiece", "100% of the letters are of scripts"),
        ("หมากำลังวิ่งบนหญ้าสีเขียว\n", "sentencepiece", "100% of the letters are of scripts"),
        ("A dog.\n一只狗\n", "sentencepiece", "27% of the letters"),
        ("一只 棕色 的 狗 在 草地 上 奔跑\n", "subword_nmt", "but spaces separate them"),
        ("개가 잔디 위를 달린다\n", "subword_nmt", "0% of the letters"),
        ("A dog in a T恤 on a street in a town, seen from afar.\n", "subword_nmt", "3% of the letters"),
    ],
)
@pytest.mark.parametrize("pipe", [False, True])
def test_the_bpe_suits_the_text(
    tmp_path: Path,
    call_program: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    bpe: str,
    reason: str,
    pipe: bool,
) -> None:
    (tmp_path / "text.txt").write_text(text * 2, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((text * 2).encode())))
    monkeypatch.setattr(learn_bpe, "SAMPLE", 3)
    source = "-" if pipe else tmp_path / "text.txt"
    done = call_program(learn_bpe.main, "--input", source, "--output", tmp_path / "v", "--symbols", 200)
    assert done.status == 0, done.error
    assert f"--bpe {bpe}: " in done.stderr and reason in done.stderr
    vocabulary = Vocabulary(tmp_path / "v")
    assert vocabulary.bpe == bpe
    for line in text.splitlines():  # none was lost with the sample
        assert vocabulary.dictionary.unk() not in vocabulary.encode_ids(line)
    what = "merges" if bpe == "subword_nmt" else "symbols"
    assert f"only {vocabulary.symbols} of 200 {what}: the text gives no more\n" in done.stdout


def test_a_threshold_decides_for_subword_nmt(tmp_path: Path, call_program: Callable[..., Any]) -> None:
    (tmp_path / "text.txt").write_text("一只棕色的狗\n" * 3, encoding="utf-8")
    arguments = ["--input", tmp_path / "text.txt", "--output", tmp_path / "v", "--threshold", 2]
    done = call_program(learn_bpe.main, *arguments)
    assert done.status == 0 and "--bpe subword_nmt: --threshold is given\n" in done.stderr
    assert Vocabulary(tmp_path / "v").bpe == "subword_nmt"


def test_threshold(tmp_path: Path, call_program: Callable[..., Any]) -> None:
    (tmp_path / "text.txt").write_text("ab ab ab cd\n")
    arguments = ["--input", tmp_path / "text.txt", "--output", tmp_path / "v", "--symbols", 1, "--threshold", 2]
    assert call_program(learn_bpe.main, *arguments).status == 0
    assert {"ab", "c@@", "d"} & Vocabulary(tmp_path / "v").dictionary.indices.keys() == {"ab"}


def test_only_a_vocabulary_is_overwritten(
    tmp_path: Path, tiny_captions: Path, tiny_data: Path, call_program: Callable[..., Any]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    (tmp_path / "file").touch()
    before = {path.name: path.stat().st_mtime_ns for path in tiny_data.iterdir()}
    for output, message in [
        (tiny_data, "holds other files than a vocabulary's"),
        (tmp_path / "photos", "holds other files than a vocabulary's"),
        (tmp_path / "file", "is a file; a vocabulary is a folder"),
    ]:
        done = call_program(learn_bpe.main, "--input", tiny_captions, "--output", output, "--overwrite")
        assert done.status == 1 and message in done.error
    assert {path.name: path.stat().st_mtime_ns for path in tiny_data.iterdir()} == before


def test_overwrite(tmp_path: Path, tiny_captions: Path, call_program: Callable[..., Any]) -> None:
    arguments = ["--input", tiny_captions, "--output", tmp_path / "v", "--symbols"]
    assert call_program(learn_bpe.main, *arguments, 20).status == 0
    before = contents(tmp_path)
    done = call_program(learn_bpe.main, *arguments, 30)
    assert done.status == 1
    assert done.error == f"{tmp_path / 'v'} already has a vocabulary; pass --overwrite to replace it"
    assert contents(tmp_path) == before
    assert call_program(learn_bpe.main, *arguments, 30, "--overwrite").status == 0
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "none.txt"], "--input none.txt does not exist"),
        (["--input", "good.txt", "none.json", "--bpe", "sentencepiece"], "--input none.json does not exist"),
        (["--input", "good.txt", "latin1.txt"], "latin1.txt is not UTF-8 text"),
        (["--input", "good.txt", "latin1.txt", "--bpe", "sentencepiece"], "latin1.txt is not UTF-8 text"),
        (["--input", "good.txt", "latin1.txt", "--workers", "2"], "latin1.txt is not UTF-8 text"),
        (["--input", "empty.txt"], "there is no text to learn a vocabulary from"),
        (["--input", "untrained.json"], "there is no text to learn a vocabulary from: captions are left out, which"),
        (["--input", "other.json"], "other.json: not a caption file of a known format"),
        (["--input", "good.txt", "table.csv"], "table.csv looks like a table"),
        (["--input", "good.txt", "--symbols", "0"], "--symbols must be at least 1, got 0"),
        (["--input", "good.txt", "--bpe", "sentencepiece", "--symbols", "4"], "cannot learn 4 symbols"),
        (["--input", "good.txt", "--bpe", "sentencepiece", "--threshold", "2"], "--threshold needs --bpe subword_nmt"),
    ],
)
def test_errors_leave_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_program: Callable[..., Any],
    tiny_vocabulary: Path,
    options: list[str],
    message: str,
    old: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.txt").write_text("a good line of words\n")
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "latin1.txt").write_bytes("ein Kätzchen\n".encode("latin1"))
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "table.csv").write_text("photo,words\n1.jpg,A dog.\n2.jpg,A cat.\n")
    untrained = {"images": [{"cocoid": 1, "split": "val", "sentences": [{"raw": "A cat."}]}]}
    (tmp_path / "untrained.json").write_text(json.dumps(untrained))
    if old:
        Vocabulary(tiny_vocabulary).copy_to((tmp_path / "v").mkdir() or tmp_path / "v")
    before = sorted(tmp_path.rglob("*")), contents(tmp_path)
    done = call_program(learn_bpe.main, *options, "--output", "v", *["--overwrite"] * old)
    assert done.status == 1
    assert message in done.error
    assert (sorted(tmp_path.rglob("*")), contents(tmp_path)) == before


@pytest.mark.parametrize("bpe", ["subword_nmt", "sentencepiece"])
def test_what_was_left_out_where_there_is_no_text(tmp_path: Path, call_program: Callable[..., Any], bpe: str) -> None:
    file = tmp_path / "test_captions.csv"
    file.write_text("image,caption\n1.jpg,A dog.\n2.jpg,A cat.\n")
    options = ["--output", tmp_path / "v", "--bpe", bpe, "--symbols", 20]
    done = call_program(learn_bpe.main, "--input", file, *options)
    assert done.status == 1
    assert f"2 captions of {file} left out, which are of split test, not train\n" in done.stderr
    assert "no text to learn a vocabulary from: " in done.error and "(train=FILE in place of FILE says" in done.error
    assert call_program(learn_bpe.main, "--input", f"train={file}", *options).status == 0


def test_an_error_of_the_command_is_one_line(tmp_path: Path) -> None:
    command = [python(), learn_bpe.__file__, "--input", "none.txt", "--output", str(tmp_path / "v")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --input none.txt does not exist"
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
