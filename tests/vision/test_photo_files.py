"""Photos found in folders, and their ids."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_files import check_ids, find_photos, photo_id
from xgpt_fairseq.vision.photos import PhotoError, load_photo


def write_photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path)
    return path


def test_find_photos(tmp_path: Path) -> None:
    for name in (
        "b/2.jpg",
        "b/10.jpg",
        "b/c/1.jpg",
        "b/.hidden/3.jpg",
        "b/.4.jpg",
        "b/notes.txt",
        "b/store/x",
        "a.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "c" / "round").symlink_to(tmp_path / "b")
    long = "long" * 99
    asked = [tmp_path / name for name in ("b", "missing.jpg", "a.jpg", "b/2.jpg", "b/.4.jpg", "c/../a.jpg", long)]
    found = [str(path.relative_to(tmp_path)) for path in find_photos(asked, exclude=[tmp_path / "b" / "store"])]
    assert found == ["b/10.jpg", "b/2.jpg", "b/c/1.jpg", "b/notes.txt", "missing.jpg", "a.jpg", "b/.4.jpg", long]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").touch()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert find_photos([tmp_path]) == [tmp_path / "a.jpg", tmp_path / "closed"]
    with pytest.raises(PhotoError, match="closed: not a file"):
        load_photo(tmp_path / "closed")


@pytest.mark.parametrize("second", ["b/1.jpg", "000001.png", "b/COCO_val2014_000000000001.jpg"])
def test_two_photos_of_one_id(tmp_path: Path, second: str) -> None:
    (tmp_path / "b").mkdir()
    first, other = tmp_path / "1.jpg", tmp_path / second
    for path in (first, other):
        write_photo(path)
    with pytest.raises(DataError, match=rf"{first} and {other} are both image 1: an image id must be unique"):
        check_ids([first, other])


def test_a_file_beside_a_photo_may_have_its_id(tmp_path: Path) -> None:
    write_photo(tmp_path / "1.jpg")
    np.save(tmp_path / "1.npy", np.zeros(3))
    check_ids([tmp_path / "1.jpg", tmp_path / "1.npy", tmp_path / "missing" / "1.jpg"])


def test_photo_ids() -> None:
    assert photo_id(Path("x/COCO_val2014_000000000042.jpg")) == "42"
    assert photo_id(Path("x/holiday \u202f7.JPEG")) == "holiday \u202f7"
    for name in (".jpg", "a\nb.jpg", os.fsdecode(b"caf\xe9.jpg")):
        with pytest.raises(PhotoError, match="its name gives no image id"):
            photo_id(Path(name))
