"""Folders that are walked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xgpt_fairseq.io.folders import walk


def refuse(error: OSError) -> None:
    raise error


def test_walk(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "b/c/1", "b/.hidden/3", ".4", "a", "out/x", "b/out.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "c" / "round").symlink_to(tmp_path / "b")
    found = walk(tmp_path, on_error=refuse, leave_out=lambda path: path.stem == "out")
    assert [(str(folder.relative_to(tmp_path)), names) for folder, names in found] == [
        (".", ["a"]), ("b", ["10", "2"]), ("b/c", ["1"]),
    ]  # fmt: skip


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    scandir = os.scandir

    def closed(path: str) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    errors: list[OSError] = []
    assert list(walk(tmp_path, on_error=errors.append)) == [(tmp_path, [])]
    assert [error.filename for error in errors] == [str(tmp_path / "a")]
