"""Text as blocks of lines: all of it, in order, from any kind of file; and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import FORMATS
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text import readers as text_readers
from xgpt_fairseq.text.readers import Block, check_inputs, read_blocks, report_log, sentences, total_bytes

TEXT = "A cat.\n\n  \nZwölf Boxkämpfer\r\nthe end"
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def lines(paths: list[Path]) -> list[str]:
    return [line for block in read_blocks(paths) for line in block.lines()]


@examples(30)
@given(
    st.lists(st.binary(max_size=40).map(lambda data: data.translate(None, b"\xefP")), max_size=3),
    st.integers(1, 20),
)
def test_blocks_are_the_files(files: list[bytes], block_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_readers, "BLOCK_BYTES", block_bytes)
        patch.setattr(text_readers, "structure_of", lambda file: None)  # any bytes are text here
        paths = [Path(folder) / f"{number}.txt" for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        blocks = list(read_blocks(paths))
        for path, data in zip(paths, files, strict=True):
            mine = [block for block in blocks if block.path == path]
            assert b"".join(block.data for block in mine) == data
            line = 1
            for number, block in enumerate(mine):
                assert block.first_line == line
                line += block.data.count(b"\n")
                # whole lines, and no more of them than are needed
                last = number == len(mine) - 1
                assert block.data.endswith(b"\n") or last
                assert block.data[:-1].rfind(b"\n") < block_bytes
        read = 0
        for block in blocks:
            read += len(block.data)
            assert block.position == read
        assert read == total_bytes(paths)
        assert list(read_blocks(paths)) == blocks


def test_lines_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    assert lines([path]) == ["A cat.", "", "  ", "Zwölf Boxkämpfer\r", "the end"]
    assert list(sentences([path])) == ["A cat.", "Zwölf Boxkämpfer\r", "the end"]
    assert lines([path, path]) == 2 * lines([path])
    path.write_bytes(b"one\ntwo\n")
    assert lines([path]) == ["one", "two"]  # the last line break ends a line and begins none
    path.write_bytes(b"")
    assert lines([path]) == []
    assert lines([]) == []


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("block_bytes", [3, 1 << 18])
def test_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, block_bytes: int) -> None:
    monkeypatch.setattr(text_readers, "BLOCK_BYTES", block_bytes)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](TEXT.encode()))
    assert lines([path]) == lines([tmp_path / "text.txt"])
    *_, last = read_blocks([tmp_path / "text.txt", path])
    assert last.position == total_bytes([tmp_path / "text.txt", path])


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"no such format", lambda _: b"\0"]
)
def test_damaged_archives(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(damage(COMPRESSORS[suffix](os.urandom(100_000).hex().encode())))
    with pytest.raises(DataError, match=rf"text\.txt\{suffix} cannot be read: "):
        lines([path])


def test_the_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("after\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert lines([Path("-"), tmp_path / "text.txt"]) == ["A cat.", "", "  ", "Zwölf Boxkämpfer\r", "the end", "after"]
    assert total_bytes([Path("-"), tmp_path / "text.txt"]) is None


def test_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(TEXT.encode(),)).start()
    check_inputs([path])
    assert total_bytes([path]) is None
    assert lines([path])[-1] == "the end"


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("one\ntwo".encode("utf-8-sig"))
    assert lines([tmp_path / "text.txt"]) == ["one", "two"]


@pytest.mark.parametrize("block_bytes", [10, 1 << 18])
def test_training_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(text_readers, "BLOCK_BYTES", block_bytes)
    raw = {"train": ["A cat.", "Two\n dogs\t"], "val": ["No."], "restval": ["Ein Bär."], "test": ["Nor this."]}
    images = [
        {"cocoid": number, "split": split, "sentences": [{"raw": text} for text in texts]}
        for number, (split, texts) in enumerate(raw.items())
    ]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
    assert lines([path]) == ["A cat.", "Two dogs", "Ein Bär."]
    assert {block.position for block in read_blocks([path])} == {path.stat().st_size}
    assert [block.first_line for block in read_blocks([path])] == ([1, 3] if block_bytes == 10 else [1])


@pytest.mark.parametrize("first_line", [1, 10])
def test_what_is_not_utf8_is_named(tmp_path: Path, first_line: int) -> None:
    data = "gut\nauch gut\nein Kätzchen\n".encode("latin1")
    block = Block(tmp_path / "latin1.txt", first_line, data, 0)
    with pytest.raises(DataError, match=rf"latin1\.txt is not UTF-8 text: line {first_line + 2}, invalid") as caught:
        block.lines()
    assert str(tmp_path) in str(caught.value)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good.txt"
    good.write_text("good\n")
    for paths, message in {
        (good, tmp_path / "none.txt"): r"--input .*none\.txt does not exist",
        (good, tmp_path): "is a folder without captions of a known format; name the files in it",
        (Path("-"), good, Path("-")): "named twice; it can be read once",
    }.items():
        with pytest.raises(DataError, match=message):
            check_inputs(paths)
        with pytest.raises(DataError, match=message):
            next(iter(read_blocks(paths)))  # at once, before the good file is read
    monkeypatch.setattr(text_readers, "LONGEST_LINE", 50)
    monkeypatch.setattr(text_readers, "BLOCK_BYTES", 10)
    good.write_text("good\n" * 7 + "x" * 100)
    with pytest.raises(DataError, match=r"good\.txt: line 8 is longer than .* one sentence or paragraph per line"):
        lines([good])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", "photo,words\n1.jpg,A dog.\n2.jpg,A cat.\n", "looks like a table with a column of photos"),
        ("captions.txt", "what,photo\nA dog.,1.jpg\nA cat.,2.jpg\n", "looks like a table with a column of photos"),
        ("captions.txt.gz", "1\tA dog.\n2\tA cat.\n", "looks like a table of 2 columns, separated by tabs"),
        ("lines", '{"photo": "1.jpg", "words": "A dog."}\n{"photo": "2.jpg", "words": "A cat."}\n', "like JSON lines"),
        ("lines", '[\n{"photo": "1.jpg"}\n]\n', "looks like JSON, and no reader of captions knows it .*--columns"),
        ("captions.csv", "photo,words\n1.jpg,A dog.\n2.jpg,A cat.\n", r"knows it \(.*there are: photo, words; say"),
    ],
)
def test_tables_are_not_learned_as_text(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(COMPRESSORS.get(path.suffix, bytes)(content.encode()))
    with pytest.raises(DataError, match=message):
        lines([path])


@pytest.mark.parametrize("fifo", [False, True])
def test_a_table_from_a_pipe_is_not_learned_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fifo: bool
) -> None:
    content = b"1.jpg,A dog.\n2.jpg,A cat.\n"
    path = Path("-")
    if fifo:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=(content,)).start()
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(DataError, match="looks like a table with a column of photos"):
        lines([path])


def test_a_folder_of_captions_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a format that takes folders; here a stand-in for one."""

    def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
        options.log.count("photos without captions")
        for path in sorted(file.path.glob("*.txt")):
            yield CaptionedImage(path.stem, "train", [Caption(0, path.read_text())])

    stand_in = CaptionFormat("stand-in", "", lambda file: any(file.path.glob("*.txt")), read)
    monkeypatch.setitem(FORMATS, "stand-in", stand_in)
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(f"A dog {number}.\n")
    options = CaptionOptions()
    check_inputs([tmp_path])
    blocks = list(read_blocks([tmp_path], options))
    assert [line for block in blocks for line in block.lines()] == ["A dog 0.", "A dog 1."]
    assert options.log.counts["photos without captions"] == 1


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [
        {"cocoid": number, "split": split, "sentences": [{"raw": text} for text in ("A dog.", " ")]}
        for number, split in enumerate(["train", "val", "test"])
    ]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": images}))
    options = CaptionOptions(log=ReadingLog(skip_bad=1))
    assert list(sentences([path], options)) == ["A dog."]
    options.log.bad_record(DataError("record 7 has no caption"))
    report_log(options.log)
    assert capsys.readouterr().err.splitlines() == [
        "3 blank captions left out",
        f"1 captions of {path} left out, which are of split valid, not train",
        f"1 captions of {path} left out, which are of split test, not train",
        "left out (--skip-bad): record 7 has no caption",
    ]


def test_half_a_character_in_json(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    image = {"cocoid": 1, "split": "train", "sentences": [{"raw": "A cat \ud83d"}]}
    path.write_text(json.dumps({"images": [image]}))
    with pytest.raises(DataError, match=r"dataset\.json: image .*, caption \d+ is not Unicode text"):
        lines([path])
