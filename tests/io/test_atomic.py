"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_directory, atomic_write, check_output_folder, check_writable, write_json


def contents(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_what_a_program_may_write(tmp_path: Path) -> None:
    check_writable(tmp_path / "file", overwrite=False)
    with pytest.raises(DataError, match="is a folder; name a file"):
        check_writable(tmp_path, overwrite=True)
    (tmp_path / "file").touch()
    check_writable(tmp_path / "file", overwrite=True)
    with pytest.raises(DataError, match="file exists; give another name or --overwrite"):
        check_writable(tmp_path / "file", overwrite=False)
    with pytest.raises(DataError, match=r"a/file: no folder .*a$"):
        check_writable(tmp_path / "a" / "file", overwrite=True)


def test_what_folder_a_program_may_write(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        check_output_folder(tmp_path / name, "a bundle", "bundle.json", overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file; a bundle is a folder"):
        check_output_folder(tmp_path / "file", "a bundle", "bundle.json", overwrite=True)
    with pytest.raises(DataError, match=r"is not a bundle \(it has no bundle\.json\), and is not replaced"):
        check_output_folder(tmp_path, "a bundle", "bundle.json", overwrite=True)
    (tmp_path / "bundle.json").touch()
    check_output_folder(tmp_path, "a bundle", "bundle.json", overwrite=True)
    with pytest.raises(DataError, match="exists and is not empty; --overwrite replaces a bundle in it"):
        check_output_folder(tmp_path, "a bundle", "bundle.json", overwrite=False)


@pytest.mark.parametrize("before", [{}, {"file": "old"}])
def test_a_file_appears_at_the_end(tmp_path: Path, before: dict[str, str]) -> None:
    path = tmp_path / "file"
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with atomic_write(path) as aside:
        assert aside.parent == tmp_path  # the same file system
        aside.write_text("new")
        assert path.exists() == bool(before)
        assert not before or path.read_text() == "old"
    assert contents(tmp_path) == {"file": "new"}


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure, it would be there and empty."""
    synced, sync = [], os.fsync

    def fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        assert not (tmp_path / "file").exists()
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "file", [1, 2])
    assert synced == [(tmp_path / "file").stat().st_ino]


@pytest.mark.parametrize("exists", [False, True])
def test_a_folders_files_are_on_the_disk_before_they_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path, sync = tmp_path / "folder", os.fsync
    if exists:
        path.mkdir()
    before: set[int] = set()
    after: set[int] = set()

    def fsync(file: int) -> None:
        (after if (path / "manifest").exists() else before).add(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_directory(path, last="manifest", files=["*"]) as aside:
        (aside / "below").mkdir()
        for name in ("manifest", "a", "below/b"):
            (aside / name).write_text("new")
    assert before >= {(path / name).stat().st_ino for name in ("manifest", "a", "below", "below/b")}
    assert after >= {path.stat().st_ino, tmp_path.stat().st_ino}


@pytest.mark.parametrize("before", [{}, {"file": "old"}])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, before: dict[str, str], error: type[BaseException]) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(error), atomic_write(tmp_path / "file") as aside:
        aside.write_text("half")
        raise error
    assert contents(tmp_path) == before


def test_write_json(tmp_path: Path) -> None:
    value = {"café": [1, 2.5, None], "b": "ß"}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "café" in text
    assert text.endswith("}\n")
    with pytest.raises(TypeError):
        write_json(tmp_path / "value.json", {"path": tmp_path})
    assert contents(tmp_path) == {"value.json": text}


def write(aside: Path, *names: str) -> None:
    for name in names:
        (aside / name).write_text("new")


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "folder"
    with atomic_directory(path, last="index", files=["*.txt"]) as aside:
        write(aside, "a.txt", "index")
        assert not path.exists()
    assert contents(tmp_path) == {"parent/folder/a.txt": "new", "parent/folder/index": "new"}
    mode = (tmp_path / "plain").mkdir() or (tmp_path / "plain").stat().st_mode
    assert path.stat().st_mode == mode  # others may read it as any folder


def test_an_old_folder_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "regions").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "index", "notes", "regions/a.txt"):
        (path / name).write_text("old")
    with atomic_directory(path, last="index", files=["*.txt"]) as aside:
        write(aside, "b.txt", "c.txt", "index")
    new = {"b.txt": "new", "c.txt": "new", "index": "new"}
    assert contents(path) == {**new, "notes": "old", "regions/a.txt": "old"}
    assert [folder.name for folder in tmp_path.iterdir()] == ["folder"]


def test_while_files_move_the_folder_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    write(path, "a.txt", "index")
    replace = Path.replace

    def fail_at_z(self: Path, target: Path) -> Path:
        if target.name == "z.txt":
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_z)
    with (
        pytest.raises(DataError, match="cannot be written: disk full"),
        atomic_directory(path, last="index", files=["*.txt"]) as aside,
    ):
        write(aside, "a.txt", "z.txt", "index")
    assert not (path / "index").exists()
    assert [folder.name for folder in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("before", [{}, {"a.txt": "old", "index": "old"}])
def test_a_failure_leaves_the_folder_that_was_there(tmp_path: Path, before: dict[str, str]) -> None:
    path = tmp_path / "folder"
    for name, text in before.items():
        path.mkdir(exist_ok=True)
        (path / name).write_text(text)
    with (
        pytest.raises(KeyboardInterrupt),
        atomic_directory(path, last="index", files=["*.txt"]) as aside,
    ):
        write(aside, "a.txt")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {f"folder/{name}": text for name, text in before.items()}
    assert path.exists() == bool(before)
    assert len(list(tmp_path.iterdir())) == bool(before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    path = tmp_path / "folder"
    (path / "more").mkdir(parents=True)
    for name in ("index", "more/a.txt"):
        (path / name).write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == path.resolve() and self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    if fails:
        monkeypatch.setattr(Path, "rename", interrupted)
    with contextlib.suppress(KeyboardInterrupt), atomic_directory(path, last="index", files=None) as aside:
        write(aside, "b.txt", "index")
    old, new = {"index": "old", "more/a.txt": "old"}, {"index": "new", "b.txt": "new"}
    assert contents(path) == (old if fails else new)
    assert [folder.name for folder in tmp_path.iterdir()] == ["folder"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_directory(tmp_path / "link", last="index", files=[]) as aside:
        write(aside, "index")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "index").read_text() == "new"
