"""`xgpt-caption-lite --jsonl`: the lines of `xgpt-caption`; killed, it goes on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.test_hub_interface import draw
from xgpt_fairseq import hub_interface
from xgpt_fairseq.cli import caption
from xgpt_runtime import cli
from xgpt_runtime.errors import DataError
from xgpt_runtime.lines import ResumableLines

Call = Callable[..., Any]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Seven photos and a text file."""
    path = tmp_path / "many"
    path.mkdir()
    draw(path)
    (path / "3.txt").write_text("bread")
    return path


def killed_after(groups: int, patch: pytest.MonkeyPatch) -> None:
    """`ResumableLines.write` is interrupted after so many groups."""
    write, written = ResumableLines.write, []

    def interrupted(self: ResumableLines, values: Any) -> None:
        if len(written) == groups:
            raise KeyboardInterrupt
        written.append(values)
        write(self, values)

    patch.setattr(ResumableLines, "write", interrupted)


def test_the_lines_are_those_of_xgpt_caption(
    call_program: Call,
    tiny_bundle: Path,
    lite_folder: Path,
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_interface, "PHOTOS_AT_ONCE", 4)
    for program, path, name in ((caption.main, tiny_bundle, "theirs"), (cli.main, lite_folder, "ours")):
        done = call_program(program, many, "--path", path, "--batch-size", 4, "--jsonl", tmp_path / name)
        assert done.status == 0 and done.stdout == f"7 of 8 images captioned: {tmp_path / name}\n"
    theirs, ours = ([json.loads(line) for line in (tmp_path / n).read_text().splitlines()] for n in ("theirs", "ours"))
    scores = [[line.pop("score", 0) for line in lines] for lines in (theirs, ours)]
    assert ours == theirs and len(ours) == 8 and {"unlike", "error"} <= {key for line in ours for key in line}
    assert scores[1] == pytest.approx(scores[0], abs=3e-4)
    done = call_program(cli.main, many, "--path", lite_folder, "--jsonl", tmp_path / "ours")
    assert done.error.endswith("ours exists; give another name or --overwrite")
    strict = ["--path", lite_folder, "--jsonl", tmp_path / "ours", "--strict", "--overwrite"]
    assert call_program(cli.main, many, *strict).error == "--strict: 1 of 8 files could not be read"
    done = call_program(cli.main, many, "--path", lite_folder, "--jsonl", tmp_path / "x", "--json", tmp_path / "y")
    assert done.error.endswith("one of them")


@pytest.mark.parametrize("groups", [0, 2])
def test_killed_it_goes_on(
    call_program: Call,
    lite_folder: Path,
    many: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: int,
) -> None:
    options = [many, "--path", lite_folder, "--batch-size", 3, "--jsonl"]
    assert call_program(cli.main, *options, tmp_path / "whole").status == 0
    path = many / "c.jsonl"  # among the photos
    with monkeypatch.context() as patch:
        killed_after(groups, patch)
        assert call_program(cli.main, *options, path).status == 130
    if not groups:
        assert not path.exists() and not (many / ".c.jsonl.partial").exists()
    else:
        with path.open("a") as file:
            file.write('{"file": "half a li')
        (many / "late.png").write_bytes((many / "0.png").read_bytes())
        other = call_program(cli.main, *options, path, "--beam", 3)
        assert "is unfinished, and was begun with other options (beam)" in other.error
    done = call_program(cli.main, *options, path)
    assert done.status == 0 and ("resuming an interrupted run after 6 images" in done.stdout) == bool(groups)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (many / ".c.jsonl.partial").exists()


@pytest.mark.parametrize("late", [False, True])
def test_overwrite_looks_for_photos_again(
    call_program: Call, lite_folder: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Where an unfinished run has found them; it goes on only if they are the same."""
    path = tmp_path / "c.jsonl"
    options = [many, "--path", lite_folder, "--batch-size", 3, "--jsonl", path]
    with monkeypatch.context() as patch:
        killed_after(2, patch)
        assert call_program(cli.main, *options).status == 130
    if late:
        (many / "late.png").write_bytes((many / "0.png").read_bytes())
    done = call_program(cli.main, *options, "--overwrite")
    assert done.stdout.endswith(f"{7 + late} of {8 + late} images captioned: {path}\n")
    assert ("resuming" in done.stdout) == (not late)
    names = [Path(json.loads(line)["file"]).name for line in path.read_text().splitlines()]
    assert len(names) == 8 + late and ("late.png" in names) == late


def test_links_that_lead_in_a_circle(call_program: Call, lite_folder: Path, tmp_path: Path) -> None:
    """They are files that can't be read."""
    [photo, *_] = draw(tmp_path)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    options = [photo, tmp_path / "loop.jpg", "--path", lite_folder]
    for name in ("--json", "--jsonl"):
        assert call_program(cli.main, *options, name, tmp_path / f"c{name}").status == 0
    lines = [json.loads(line) for line in (tmp_path / "c--jsonl").read_text().splitlines()]
    assert [line.get("error") for line in lines] == [None, "no such file"]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    with ResumableLines(tmp_path / "a", {}, lambda: [1], group=1, overwrite=False) as lines:
        lines.write([{"a": 1}])
        with pytest.raises(DataError, match="another run is writing"):
            ResumableLines(tmp_path / "a", {}, lambda: [1], group=1, overwrite=False)
    (tmp_path / ".a.partial" / "journal.json").write_text('{"beam": 2}')
    with pytest.raises(DataError, match=r"journal\.json is not of this program; pass --overwrite"):
        ResumableLines(tmp_path / "a", {}, lambda: [1], group=1, overwrite=False)
    with ResumableLines(tmp_path / "a", {}, lambda: [2], group=1, overwrite=True) as lines:
        assert lines.groups == 0 and lines.items == [2]


def test_whose_error_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's own are said of it; another file's, such as a photo's, are not."""
    new: dict[str, Any] = {"group": 1, "overwrite": False}
    with pytest.raises(OSError, match="elsewhere"), ResumableLines(tmp_path / "a", {}, lambda: [1], **new):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "elsewhere")

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said = r"/a can't be written: No space left on device; the same command goes on"
    with pytest.raises(DataError, match=said), ResumableLines(tmp_path / "a", {}, lambda: [1], **new) as lines:
        lines.write([{"a": 1}])
        monkeypatch.setattr(os, "fsync", fsync)
        lines.finish()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with ResumableLines(tmp_path / "a", {}, lambda: [1], group=1, overwrite=False) as lines:
        lines.write([{"a": 1}])
        lines.finish()
    assert (tmp_path / "a").read_text() == '{"a": 1}\n'
