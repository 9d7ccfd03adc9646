"""Preparations of text that are interrupted, or killed, go on where they stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli import test_prepare_text as preparation
from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.cli import text_encoding
from xgpt_fairseq.data.directory import TextDirectory
from xgpt_fairseq.data.indexed_writer import IndexedWriter
from xgpt_fairseq.io.resumable import ResumableOutput

prepare, small_blocks, text = preparation.prepare, preparation.small_blocks, preparation.text  # fixtures


class _Interrupting:
    """Stands for `ResumableOutput.save`: saves, and presses Ctrl-C after the *last* time."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __get__(self, run: ResumableOutput, kind: type[ResumableOutput]) -> Callable[[dict[str, Any]], None]:
        def save(state: dict[str, Any]) -> None:
            SAVE(run, state)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        return save


SAVE = ResumableOutput.save


@pytest.fixture
def interrupt(
    prepare: Callable[..., Any], small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """interrupt(after, *options): `prepare`, stopped by Ctrl-C when it has saved its state *after* times."""
    monkeypatch.setattr(text_encoding, "JOURNAL_SECONDS", 0.0)  # with every block

    def call(after: int, *options: object, **inputs: object) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(ResumableOutput, "save", _Interrupting(after))
            done = prepare(*options, **inputs)
        assert done.status == 130
        return done

    yield call


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on(
    prepare: Callable[..., Any], interrupt: Callable[..., Any], tmp_path: Path, workers: int
) -> None:
    assert prepare().status == 0
    expected = contents(tmp_path / "data")
    assert prepare("--valid-lines", 40, "--overwrite").status == 0
    other = contents(tmp_path / "data")
    assert other != expected
    options = ["--overwrite", "--workers", workers]
    for after in (1, 3, 2):  # three times in one run
        done = interrupt(after, *options)
        assert f"the same command resumes from {tmp_path / '.data.partial'}" in done.stderr
        assert done.stderr.splitlines()[-1] == "interrupted"
        assert contents(tmp_path / "data") == other
    journal = json.loads((tmp_path / ".data.partial" / "journal.json").read_text())
    assert journal["state"]["progress"]["blocks"] == 6
    # what came behind the last state is cut off
    with open(tmp_path / ".data.partial" / "data" / "train.text.bin", "ab") as file:
        file.write(b"half a sentence")
    done = prepare(*options)
    assert done.status == 0
    assert f"resuming an interrupted run after {journal['state']['progress']['lines']} lines" in done.stderr
    assert contents(tmp_path / "data") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_killed_run_goes_on(
    text: Path, tiny_vocabulary: Path, tmp_path: Path, prepare: Callable[..., Any], small_blocks: None
) -> None:
    assert prepare("--overwrite", "--output", tmp_path / "expected").status == 0
    # a pipe holds the program where it is to be killed
    pipe = tmp_path / "text.txt"
    os.mkfifo(pipe)
    program = (
        "from xgpt_fairseq.cli import prepare_text, text_encoding; from xgpt_fairseq.text import readers\n"
        "text_encoding.JOURNAL_SECONDS = 0.0; readers.BLOCK_BYTES = 300; prepare_text.main()"
    )
    command = [python(), "-c", program, "--input", pipe, "--vocabulary", tiny_vocabulary, "--valid-lines", "30"]
    command += ["--output", tmp_path / "data", "--workers", "2"]
    journal = tmp_path / ".data.partial" / "journal.json"
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE) as killed:
        with open(os.open(pipe, os.O_RDWR), "wb") as file:  # does not wait for the program to open it
            # more than the workers have ahead of them
            file.write(text.read_bytes()[:6000])
            file.flush()
            while not journal.exists():
                assert killed.poll() is None
                time.sleep(0.05)
            killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)  # the workers end, too
    assert not (tmp_path / "data").exists()
    pipe.unlink()
    pipe.write_bytes(text.read_bytes())
    done = prepare(inputs=[pipe])
    assert done.status == 0, done.stderr
    assert "resuming an interrupted run after" in done.stderr
    assert contents(tmp_path / "data") == contents(tmp_path / "expected")


def test_the_input_of_a_run_that_goes_on_must_be_the_same(
    prepare: Callable[..., Any], interrupt: Callable[..., Any], text: Path, tmp_path: Path
) -> None:
    assert prepare("--output", tmp_path / "expected").status == 0
    path = tmp_path / "text.txt"
    data = text.read_bytes()
    path.write_bytes(data)
    interrupt(4, inputs=[path])
    before = contents(tmp_path / ".data.partial")
    for changed in (data.replace(b"a", b"b", 1), data[:500]):
        path.write_bytes(changed)
        done = prepare(inputs=[path])
        assert done.status == 1
        assert "lines of the input are not those of the interrupted run; delete" in done.error
        assert str(tmp_path / ".data.partial") in done.error
        assert contents(tmp_path / ".data.partial") == before
    path.write_bytes(data)
    assert prepare(inputs=[path]).status == 0
    assert contents(tmp_path / "data") == contents(tmp_path / "expected")


def test_an_error_far_into_the_text_can_be_mended(
    prepare: Callable[..., Any], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    assert prepare("--output", tmp_path / "expected").status == 0
    monkeypatch.setattr(text_encoding, "JOURNAL_SECONDS", 0.0)
    path = tmp_path / "text.txt"
    lines = text.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:300], "Kätzchen\n".encode("latin1"), *lines[300:]]))
    done = prepare(inputs=[path])
    assert done.status == 1
    assert f"{path} is not UTF-8 text: line 301, invalid" in done.error
    path.write_bytes(text.read_bytes())
    done = prepare(inputs=[path])
    assert "resuming an interrupted run after" in done.stderr
    assert contents(tmp_path / "data") == contents(tmp_path / "expected")


def test_a_full_disk(
    prepare: Callable[..., Any], interrupt: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare("--output", tmp_path / "expected").status == 0
    add = IndexedWriter.add

    def full(writer: IndexedWriter, tokens: np.ndarray, sizes: np.ndarray) -> None:
        if writer.sentences > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(writer, tokens, sizes)

    with monkeypatch.context() as patch:
        patch.setattr(IndexedWriter, "add", full)
        done = prepare()
    assert done.status == 1
    assert done.error.endswith(
        "data: No space left on device (correct this, and the same command resumes where it stopped)"
    ), done.error
    assert prepare().status == 0
    assert contents(tmp_path / "data") == contents(tmp_path / "expected")


def test_other_options_than_those_of_the_interrupted_run(
    prepare: Callable[..., Any], interrupt: Callable[..., Any], tmp_path: Path
) -> None:
    interrupt(4)
    done = prepare("--max-tokens", 50)
    assert done.status == 1
    assert "was started with other options (max_tokens: 60 then, 50 now); pass --overwrite to start over" in done.error
    done = prepare("--max-tokens", 50, "--overwrite")
    assert done.status == 0
    assert "going on" not in done.stderr
    assert TextDirectory(tmp_path / "data").manifest.max_tokens == 50
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--hold-out", "val=0.1"),
        ("--columns", "caption=words"),
        ("--answers", "first"),
        ("--skip-bad", 2),
        ("--format", "table"),
    ],
)
def test_other_options_of_captions(
    prepare: Callable[..., Any], interrupt: Callable[..., Any], text: Path, tmp_path: Path, option: str, value: object
) -> None:
    table = tmp_path / "train.csv"
    table.write_text("image,caption,words\n1.jpg,A dog runs.,A dog\n2.jpg,A cat sits.,A cat\n")
    if option == "--answers":
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A dog runs."}]
        table = tmp_path / "train.jsonl"
        table.write_text("".join(json.dumps({"image": f"{n}.jpg", "conversations": turns}) + "\n" for n in (1, 2)))
    interrupt(4, inputs=[text, table])
    done = prepare(option, value, inputs=[text, table])
    assert done.status == 1
    name = option.lstrip("-").replace("-", "_")
    assert f"was started with other options ({name}: None then, {value} now)" in done.error


def test_a_damaged_interrupted_run(prepare: Callable[..., Any], interrupt: Callable[..., Any], tmp_path: Path) -> None:
    interrupt(4)
    file = tmp_path / ".data.partial" / "data" / "train.text.sizes"
    file.write_bytes(file.read_bytes()[:-4])
    done = prepare()
    assert done.status == 1
    assert f"train.text.sizes has {file.stat().st_size} bytes, at least" in done.error
    assert f"delete {tmp_path / '.data.partial'} to start over" in done.error


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_ends_behind_its_last_line_goes_on(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None, times: int
) -> None:
    """Where its token files are finished, and not in their place."""
    assert prepare("--output", tmp_path / "expected").status == 0
    monkeypatch.setattr(text_encoding, "JOURNAL_SECONDS", 0.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(times):
        with monkeypatch.context() as patch:
            patch.setattr(ResumableOutput, "finish", full)
            done = prepare()
        assert "(correct this, and the same command resumes where it stopped)" in done.error
    done = prepare()
    assert done.status == 0, done.stderr
    assert "resuming an interrupted run after" in done.stderr
    assert contents(tmp_path / "data") == contents(tmp_path / "expected")
