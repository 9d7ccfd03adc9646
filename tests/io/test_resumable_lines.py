"""JSON lines that go on where an interrupted run stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io import resumable_lines
from xgpt_fairseq.io.resumable_lines import ResumableLines

OPTIONS = {"beam": 2, "photos": "abc"}


def values(count: int) -> list[dict[str, Any]]:
    return [{"number": number, "text": "été" * (number % 3)} for number in range(count)]


def write(path: Path, count: int, group: int, until: int | None = None, **changes: Any) -> int:
    """Write *count* values, or stop as a killed run does after *until* groups; how many groups there were before."""
    overwrite = changes.pop("overwrite", False)
    groups = [values(count)[at : at + group] for at in range(0, count, group)]
    with ResumableLines(path, {**OPTIONS, **changes}, group=group, overwrite=overwrite) as lines:
        before = lines.groups
        for number, each in enumerate(groups):
            if number == until:
                return before
            if number >= before:
                lines.write(each)
        lines.finish()
    return before


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(1, 30), st.integers(1, 7), st.data())
def test_wherever_it_was_killed_it_ends_the_same(tmp_path: Path, count: int, group: int, data: st.DataObject) -> None:
    """Also in the middle of a line."""
    expected, path = tmp_path / "expected.jsonl", tmp_path / "some.jsonl"
    shutil.rmtree(tmp_path)  # of the example before
    tmp_path.mkdir()
    write(expected, count, group, overwrite=True)
    write(path, count, group, overwrite=True, until=data.draw(st.integers(0, count // group)))
    if (tmp_path / ".some.jsonl.partial").exists() and path.stat().st_size:
        with open(path, "r+b") as file:
            file.truncate(data.draw(st.integers(0, path.stat().st_size)))
        write(path, count, group)
    else:
        write(path, count, group, overwrite=True)
    assert path.read_bytes() == expected.read_bytes()
    assert [json.loads(line) for line in path.read_text().splitlines()] == values(count)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["expected.jsonl", "some.jsonl"]


def test_lines_are_there_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    with ResumableLines(path, OPTIONS, group=2, overwrite=False) as lines:
        lines.write(values(2))
        assert len(path.read_text().splitlines()) == 2
        with pytest.raises(DataError, match=r"another run is writing .*some\.jsonl"):
            ResumableLines(path, OPTIONS, group=2, overwrite=False)
    assert write(path, 6, 2) == 1


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write(path, 4, 2)
    with pytest.raises(DataError, match=r"some\.jsonl exists; give another name or --overwrite"):
        write(path, 4, 2)
    assert len(path.read_text().splitlines()) == 4
    assert write(path, 6, 2, overwrite=True) == 0
    assert len(path.read_text().splitlines()) == 6


def test_a_complete_file_with_its_options_is_finished(tmp_path: Path) -> None:
    path, kept = tmp_path / "some.jsonl", tmp_path / ".some.jsonl.options.json"

    def run(*, overwrite: bool = False, **options: Any) -> ResumableLines:
        given = {**OPTIONS, **options}
        with ResumableLines(path, given, group=2, overwrite=overwrite, keep_options=True) as lines:
            if not lines.finished:
                assert not path.exists() or overwrite
                lines.write(values(2))
                assert not kept.exists()  # before the file is complete
                lines.finish()
        return lines

    assert not run().finished
    assert kept.exists()
    before = path.read_bytes()
    assert run().finished and path.read_bytes() == before
    with pytest.raises(DataError, match=r"some\.jsonl exists, and was written with other options \(beam\); give anoth"):
        run(beam=3)
    assert not run(beam=3, overwrite=True).finished
    assert run(beam=3).finished
    kept.unlink()
    with pytest.raises(DataError, match=r"some\.jsonl exists; give another name or --overwrite"):
        run(beam=3)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["some.jsonl"]


def test_what_is_replaced_stays_until_there_are_new_lines(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write(path, 4, 2)
    before = path.read_bytes()
    write(path, 6, 2, overwrite=True, until=0)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["some.jsonl"]
    with ResumableLines(path, OPTIONS, group=2, overwrite=True) as lines:
        assert path.read_bytes() == before
        lines.write(values(2))
        assert path.read_text().count("\n") == 2
    assert write(path, 6, 2) == 1


def test_of_an_empty_file_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path / "some.jsonl", 6, 2, until=0)
    assert not list(tmp_path.iterdir())
    assert write(tmp_path / "some.jsonl", 6, 2, beam=5) == 0


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write(path, 6, 2, until=2)
    with pytest.raises(DataError, match=r"is unfinished, and was begun with other options \(beam, group\)"):
        write(path, 6, 3, beam=5)
    assert len(path.read_text().splitlines()) == 4
    assert write(path, 6, 2, beam=5, overwrite=True) == 0
    assert len(path.read_text().splitlines()) == 6


def test_a_damaged_journal_and_a_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write(path, 6, 2, until=1)
    assert len(path.read_text().splitlines()) == 2
    (tmp_path / ".some.jsonl.partial" / "journal.json").write_text("{")
    with pytest.raises(DataError, match=r"journal\.json is unreadable"):
        write(path, 6, 2)
    with pytest.raises(DataError, match="no folder"):
        write(tmp_path / "none" / "some.jsonl", 1, 1)


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    with ResumableLines(tmp_path / "some.jsonl", {}, group=1, overwrite=False) as lines:
        lines.write([{"file": "a\udcff.jpg"}])
        lines.finish()
    assert (tmp_path / "some.jsonl").read_text() == '{"file": "a\\udcff.jpg"}\n'
    assert json.loads((tmp_path / "some.jsonl").read_text())["file"] == "a\udcff.jpg"


def test_a_run_that_comes_as_another_ends_leaves_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has looked before the other one was done, and gets the lock behind it."""
    path = tmp_path / "some.jsonl"
    take_lock = resumable_lines.take_lock

    def late(folder: Path, what: str) -> int:
        monkeypatch.setattr(resumable_lines, "take_lock", take_lock)
        write(path, 4, 2)
        folder.mkdir(exist_ok=True)
        return take_lock(folder, what)

    monkeypatch.setattr(resumable_lines, "take_lock", late)
    with pytest.raises(DataError, match=r"some\.jsonl exists"):
        write(path, 4, 2)
    assert len(path.read_text().splitlines()) == 4


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").mkdir()
    with pytest.raises(DataError, match=r"some\.jsonl is no file"):
        write(tmp_path / "some.jsonl", 4, 2, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["some.jsonl"]
