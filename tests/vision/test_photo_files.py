"""Photos found in folders, and their ids: the shortest names that keep them apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_files import PhotoFile, check_ids, find_photos, photo_id
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
    photos = find_photos(asked, exclude=[tmp_path / "b" / "store"])
    found = [str(photo.path.relative_to(tmp_path)) for photo in photos]
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
    assert [photo.path for photo in find_photos([tmp_path])] == [tmp_path / "a.jpg", tmp_path / "closed"]
    with pytest.raises(PhotoError, match="closed: not a file"):
        load_photo(tmp_path / "closed")


def ids(folder: Path, *asked: str) -> list[str]:
    """The image ids of *asked* paths in *folder*, or of the folder itself."""
    return [photo.image_id for photo in find_photos([folder / name for name in asked] or [folder])]


def test_photos_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("a/001.jpg", "a/b/1.png", "a/x.jpg", "c/1.jpg", "c/y.jpg", "1.jpg"):
        write_photo(tmp_path / "photos" / name)
    folder = tmp_path / "photos"
    assert ids(folder) == ["1", "a/1", "a/b/1", "x", "c/1", "y"]
    assert [photo.name for photo in find_photos([folder])] == [
        "1.jpg", "a/001.jpg", "a/b/1.png", "x.jpg", "c/1.jpg", "y.jpg",
    ]  # fmt: skip
    assert ids(folder, "a") == ["1", "b/1", "x"]  # below the folder that is given
    assert ids(folder, "a", "c") == ["a/1", "a/b/1", "x", "c/1", "y"]  # below what they have in common
    assert ids(folder, "a/b", "a") == ["b/1", "1", "x"]
    assert ids(folder, "c/1.jpg", "a/001.jpg") == ["c/1", "a/1"]
    assert ids(folder, "c/1.jpg") == ["1"]
    assert ids(folder, "c", "a/../c/1.jpg") == ["1", "y"]  # one file
    check_ids(find_photos([folder]))


def test_ids_do_not_depend_on_where_the_program_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.jpg", "b/1.jpg"):
        write_photo(tmp_path / "photos" / name)
    for place, asked in ((".", "photos"), ("photos", "."), ("photos/a", "..")):
        monkeypatch.chdir(tmp_path / place)
        assert [photo.image_id for photo in find_photos([Path(asked)])] == ["a/1", "b/1"]


@pytest.mark.parametrize("second", ["1.png", "01.jpg", "COCO_val2014_000000000001.jpg"])
def test_two_photos_of_one_id(tmp_path: Path, second: str) -> None:
    for folder in ("a", "b"):
        write_photo(tmp_path / folder / "1.jpg")
    other = write_photo(tmp_path / "a" / second)
    with pytest.raises(DataError, match="are both image a/1: an image id must be unique") as error:
        check_ids(find_photos([tmp_path]))
    assert f"{tmp_path / 'a' / '1.jpg'}" in str(error.value) and f"{other}" in str(error.value)


def test_a_file_beside_a_photo_may_have_its_id(tmp_path: Path) -> None:
    """It does not lengthen the photo's id, either."""
    write_photo(tmp_path / "a" / "1.jpg")
    np.save(tmp_path / "a" / "1.npy", np.zeros(3))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1").write_text("no photo")
    photos = find_photos([tmp_path])
    assert [photo.image_id for photo in photos] == ["1", "1", "1"]
    check_ids(photos)


def test_a_photo_without_an_extension_counts(tmp_path: Path) -> None:
    write_photo(tmp_path / "a" / "x.jpg")
    write_photo(tmp_path / "b" / "x.png").rename(tmp_path / "b" / "x")
    assert ids(tmp_path) == ["a/x", "b/x"]


def test_a_damaged_photo_does_not_leave_its_name_to_another(tmp_path: Path) -> None:
    """Else the captions of a/1.jpg would find b/1.jpg."""
    write_photo(tmp_path / "b" / "1.jpg")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_text("damaged")
    assert ids(tmp_path) == ["a/1", "b/1"]


def test_photo_ids() -> None:
    def named(name: str) -> PhotoFile:
        [photo] = find_photos([Path("x") / name])
        return photo

    assert photo_id(named("COCO_val2014_000000000042.jpg")) == "42"
    assert photo_id(named("holiday \u202f7.JPEG")) == "holiday \u202f7"
    for name in (".jpg", "a\nb.jpg", os.fsdecode(b"caf\xe9.jpg")):
        with pytest.raises(PhotoError, match="its name is not a valid image id"):
            photo_id(named(name))


def test_caches_beside_a_saved_data_set_are_no_photos(tmp_path: Path) -> None:
    """Such as `datasets.map` writes into the folder that it reads."""
    for name in ("data-00000-of-00001.arrow", "cache-1a2b.arrow", "other/cache-1a2b.arrow", "1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    found = [photo.path.relative_to(tmp_path).as_posix() for photo in find_photos([tmp_path])]
    assert found == ["1.jpg", "data-00000-of-00001.arrow", "other/cache-1a2b.arrow", "state.json"]
    (tmp_path / "state.json").write_text("{}")  # captions are refused then, with the reason
    assert tmp_path / "cache-1a2b.arrow" in {photo.path for photo in find_photos([tmp_path])}
