"""Runs that are interrupted: what the next one finds, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import python
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.resumable import ResumableOutput

OPTIONS = {"input": ["a.txt"], "max_tokens": 60}


def contents(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def interrupted(output: Path, state: Any = "half", options: dict[str, Any] = OPTIONS) -> None:
    """Leave a run of *output* that saved *state*."""
    with pytest.raises(KeyboardInterrupt), ResumableOutput(output, options, overwrite=False) as run:
        (run.data / "half.bin").write_text("half")
        run.save({"done": state})
        raise KeyboardInterrupt


def test_a_run_that_is_not_interrupted(tmp_path: Path) -> None:
    with ResumableOutput(tmp_path / "new" / "output", OPTIONS, overwrite=False) as run:
        assert run.state is None
        assert not run.is_resumable
        (run.data / "a.bin").write_text("a")
        run.save({"done": 1})
        assert run.is_resumable
        (run.data / "index").write_text("i")
        assert not run.output.exists()
        run.finish(last="index", files=["*.bin"])
    assert contents(tmp_path) == {"new/output/a.bin": "a", "new/output/index": "i"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["output"]


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    interrupted(tmp_path / "output")
    assert [path.name for path in tmp_path.iterdir()] == [".output.partial"]
    with ResumableOutput(tmp_path / "output", dict(OPTIONS), overwrite=False) as run:
        assert run.state == {"done": "half"}
        assert contents(run.data) == {"half.bin": "half"}
        (run.data / "index").write_text("i")
        run.finish(last="index", files=["*.bin"])
    assert contents(tmp_path) == {"output/half.bin": "half", "output/index": "i"}


def test_files_are_on_the_disk_before_the_journal_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    interrupted(tmp_path / "output")
    journal = tmp_path / ".output.partial" / "journal.json"

    def fsync(file: int) -> None:
        assert journal.exists()
        synced.add(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    with ResumableOutput(tmp_path / "output", dict(OPTIONS), overwrite=False) as run:
        (run.data / "index").write_text("i")
        run.finish(last="index", files=["*.bin"])
    output = tmp_path / "output"
    assert synced >= {path.stat().st_ino for path in (output, output / "half.bin", output / "index")}
    assert not journal.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_without_a_state_nothing_stays(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), ResumableOutput(tmp_path / "output", OPTIONS, overwrite=False) as run:
        (run.data / "half.bin").write_text("half")
        raise error
    with pytest.raises(error), ResumableOutput(tmp_path / "output", OPTIONS, overwrite=False) as run:
        run.save({})
        run.discard_journal()
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_options(tmp_path: Path, overwrite: bool) -> None:
    interrupted(tmp_path / "output")
    options = {"input": ["a.txt"], "max_tokens": 50, "valid_lines": 1}
    if not overwrite:
        before = contents(tmp_path)
        with pytest.raises(DataError) as caught:
            ResumableOutput(tmp_path / "output", options, overwrite=False)
        assert str(caught.value) == (
            f"the unfinished run {tmp_path / '.output.partial'} was started with other options (max_tokens: 60 then, "
            "50 now; valid_lines: None then, 1 now); pass --overwrite to start over"
        )
        assert contents(tmp_path) == before
        with ResumableOutput(tmp_path / "output", OPTIONS, overwrite=False) as run:  # it can still be resumed
            assert run.state is not None
    else:
        with ResumableOutput(tmp_path / "output", options, overwrite=True) as run:
            assert run.state is None
            assert list(run.data.iterdir()) == []
        assert list(tmp_path.iterdir()) == []


def test_overwrite_resumes_too(tmp_path: Path) -> None:
    interrupted(tmp_path / "output")
    (tmp_path / "output").mkdir()
    for name in ("old.bin", "index", "notes"):
        (tmp_path / "output" / name).write_text("old")
    with ResumableOutput(tmp_path / "output", OPTIONS, overwrite=True) as run:
        assert run.state == {"done": "half"}
        (run.data / "index").write_text("new")
        run.finish(last="index", files=["*.bin"])
    assert contents(tmp_path) == {"output/half.bin": "half", "output/index": "new", "output/notes": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


@pytest.mark.parametrize(
    ("journal", "message"),
    [
        ("{", "unfinished run .*output.partial cannot be resumed: its journal is unreadable .*; pass --overwrite"),
        ("[]", "its journal is unreadable"),
        ("{}", "its journal is unreadable"),
        (
            json.dumps({"version": 2, "options": OPTIONS, "state": {}}),
            "was started with other options .format version 2.",
        ),
    ],
)
def test_journals_that_are_refused(tmp_path: Path, journal: str, message: str) -> None:
    interrupted(tmp_path / "output")
    (tmp_path / ".output.partial" / "journal.json").write_text(journal)
    with pytest.raises(DataError, match=message):
        ResumableOutput(tmp_path / "output", OPTIONS, overwrite=False)
    assert (tmp_path / ".output.partial" / "data" / "half.bin").exists()
    with ResumableOutput(tmp_path / "output", OPTIONS, overwrite=True) as run:
        assert run.state is None
        assert list(run.data.iterdir()) == []


def test_a_run_rejects_what_it_finds(tmp_path: Path) -> None:
    """A state may be of no use for reasons of the run's own."""
    interrupted(tmp_path / "output")
    (tmp_path / ".output.partial" / "notes").write_text("of the interrupted run")
    before = contents(tmp_path)
    with (
        ResumableOutput(tmp_path / "output", OPTIONS, overwrite=False, what="import") as run,
        pytest.raises(DataError) as caught,
    ):
        run.reject_state("cannot be resumed: half.bin is too short")
    assert str(caught.value) == (
        f"the unfinished import {run.folder} cannot be resumed: half.bin is too short; pass --overwrite to start over"
    )
    assert contents(tmp_path) == before
    with ResumableOutput(tmp_path / "output", OPTIONS, overwrite=True) as run:
        run.reject_state("cannot be resumed: half.bin is too short")
        assert run.state is None
        assert not run.is_resumable
        assert sorted(path.name for path in run.folder.iterdir()) == ["data", "lock"]
        assert list(run.data.iterdir()) == []


def test_replacing_takes_a_folder_away_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "notes").write_text("old")
    with ResumableOutput(tmp_path / "output", OPTIONS, overwrite=True) as run:
        (run.data / "index").write_text("new")
        run.save({})
        run.replace()
    assert contents(tmp_path) == {"output/index": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_a_run_that_was_killed_when_its_folder_had_its_name(tmp_path: Path) -> None:
    """What it left has nothing to resume: the next run starts over."""
    interrupted(tmp_path / "output")
    (tmp_path / ".output.partial" / "data").rename(tmp_path / "output")
    with ResumableOutput(tmp_path / "output", OPTIONS, overwrite=True) as run:
        assert run.state is None
        assert list(run.data.iterdir()) == []
    assert contents(tmp_path) == {"output/half.bin": "half"}


def test_two_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from xgpt_fairseq.io.resumable import ResumableOutput\n"
        "ResumableOutput(Path(sys.argv[1]), {}, overwrite=True)"
    )
    with ResumableOutput(tmp_path / "output", {}, overwrite=False) as run:
        run.save({"done": 1})
        command = [python(), "-c", program, str(tmp_path / "output")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"another run is writing {tmp_path / 'output'} at this moment" in done.stderr
        assert run.is_resumable
    with ResumableOutput(tmp_path / "output", {}, overwrite=False) as run:
        assert run.state == {"done": 1}
