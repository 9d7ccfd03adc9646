"""Links that somebody has put where a program writes: no file is overwritten or emptied where they lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import aside_of, atomic_directory, atomic_write, check_writable
from xgpt_fairseq.io.resumable import ResumableOutput, partial_path
from xgpt_fairseq.io.resumable_lines import ResumableLines


@pytest.fixture
def somebodys(tmp_path: Path) -> Path:
    """A folder with a file, which stay as they are."""
    folder = tmp_path / "home"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "letter.txt").write_text("dear")
    (folder / "letter.txt").write_text("dear")
    return folder


def untouched(folder: Path) -> bool:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return files == {"letter.txt", "data/letter.txt"} and (folder / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_working_folder(tmp_path: Path, somebodys: Path, overwrite: bool) -> None:
    partial_path(tmp_path / "STORE").symlink_to(somebodys)
    with pytest.raises(DataError, match=r"\.STORE\.partial is a link to .*home; remove it"):
        ResumableOutput(tmp_path / "STORE", {}, overwrite=overwrite)
    with pytest.raises(DataError, match=r"\.STORE\.partial is a link to .*home; remove it"):
        ResumableLines(tmp_path / "STORE", {}, group=1, overwrite=overwrite)
    assert untouched(somebodys)


def test_a_temporary_name(tmp_path: Path, somebodys: Path) -> None:
    """It has the number of the process, which can be guessed, or is an ended process's."""
    aside_of(tmp_path / "out.json").symlink_to(somebodys / "letter.txt")
    with atomic_write(tmp_path / "out.json") as aside:
        aside.write_text("{}")
    assert (tmp_path / "out.json").read_text() == "{}" and not (tmp_path / "out.json").is_symlink()
    aside_of(tmp_path / "data").symlink_to(somebodys)
    with atomic_directory(tmp_path / "data", last="a", files=["*"]) as aside:
        (aside / "a").write_text("a")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]
    assert untouched(somebodys)


def test_what_an_ended_process_has_left(tmp_path: Path) -> None:
    left = aside_of(tmp_path / "data")
    left.mkdir()
    (left / "half").write_text("half")
    with atomic_directory(tmp_path / "data", last="a", files=["*"]) as aside:
        (aside / "a").write_text("a")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]


@pytest.mark.parametrize("target", ["letter.txt", "new.txt"])
def test_an_output_file(tmp_path: Path, somebodys: Path, target: str) -> None:
    """Without --overwrite it is refused, also where it leads nowhere; with it, the link is replaced, not its file."""
    output = tmp_path / "out.json"
    output.symlink_to(somebodys / target)
    with pytest.raises(DataError, match=r"out\.json exists; give another name or --overwrite"):
        check_writable(output, overwrite=False)
    with atomic_write(output) as aside:
        aside.write_text("{}")
    assert not output.is_symlink() and untouched(somebodys)


def test_lines_that_grow(tmp_path: Path, somebodys: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.symlink_to(somebodys / "letter.txt")
    with pytest.raises(DataError, match="exists; give another name or --overwrite"):
        ResumableLines(output, {}, group=1, overwrite=False)
    with ResumableLines(output, {}, group=1, overwrite=True) as lines:
        lines.write([{"a": 1}])
        lines.finish()
    assert output.read_text() == '{"a": 1}\n' and not output.is_symlink() and untouched(somebodys)
