"""The names of photos, before anything is extracted from them. tests/cli/test_check_photos.py compares with stores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.tars import write_tar
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_names import names_of_photos, needed_reader


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 40), 90).save(path)
    return path


def test_a_photo_is_what_begins_like_one(tmp_path: Path) -> None:
    """Whether it is damaged behind that is found by extraction."""
    for name in ("set/train/1.jpg", "set/val/1.jpg", "set/val/2", "set/val/3.png"):
        content = photo(tmp_path / "photo.jpg").read_bytes()
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content[:-100] if name.endswith("3.png") else content)
    others = [tmp_path / "set" / name for name in ("4.jpg", "val/1.txt")]
    for other in others:
        other.write_text("<html>")
    names, found = names_of_photos([tmp_path / "set"])
    assert [names.image_id(index) for index in range(len(names))] == ["train/1", "val/1", "2", "3"]
    assert [names.folder_parts(index) for index in (0, 2)] == [("set", "train"), ("set", "val")]
    assert (names.where, names.kind, sorted(file.path for file in found)) == (str(tmp_path / "set"), "photos", others)


def test_names_that_a_store_cannot_hold_are_none_of_its(tmp_path: Path) -> None:
    photo(tmp_path / "set" / "1.png")
    odd = photo(tmp_path / "odd.png").rename(tmp_path / "set" / "two\nlines.png")
    names, others = names_of_photos([tmp_path / "set"])
    assert len(names) == 1 and [file.path for file in others] == [odd]
    odd.rename(tmp_path / "two\nlines.png")
    with pytest.raises(DataError, match=r"(?s)is a photo. The first: .*: its name is not a valid image id"):
        names_of_photos([tmp_path / "two\nlines.png"])


def test_in_one_tar_folders_count_from_inside_it(tmp_path: Path) -> None:
    content = photo(tmp_path / "1.png").read_bytes()
    tars = [write_tar(tmp_path / f"{place}.tar", {f"a/{place}.png": content}) for place in range(2)]
    names, _ = names_of_photos(tars[:1])
    assert names.folder_parts(0) == ("0.tar", "a")
    names, _ = names_of_photos(tars)
    assert [names.folder_parts(index) for index in range(2)] == [("", "0.tar", "a"), ("", "1.tar", "a")]


def test_two_photos_of_one_id(tmp_path: Path) -> None:
    photo(tmp_path / "1.png"), photo(tmp_path / "1.jpg")
    with pytest.raises(DataError, match="are both image 1: an image id must be unique"):
        names_of_photos([tmp_path])
    with pytest.raises(DataError, match="there are no files in"):
        (tmp_path / "empty").mkdir()
        names_of_photos([tmp_path / "empty"])


def test_a_photo_that_another_package_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone's HEIC is a photo, and what it needs is said, not that it is none."""
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for name, content in (("1.txt", b"a cat"), ("2.jpg", b"<html>"), ("3.heic", heic), ("4.HEIC", heic)):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("xgpt_fairseq.vision.photo_formats.known_formats", lambda: ("JPEG", "PNG"))
    needs = f'{tmp_path / "3.heic"}: HEIC, which needs the package pillow-heif: pip install "xgpt-fairseq[heif]"'
    with pytest.raises(
        DataError, match=re.escape(f"none of the 1 files in {tmp_path / '3.heic'} is a photo")
    ) as caught:
        names_of_photos([tmp_path / "3.heic"])
    assert str(caught.value).endswith(f"The first: {needs}")
    photo(tmp_path / "0.png")
    _, others = names_of_photos([tmp_path])
    assert needed_reader(others) == needs
    assert needed_reader(others[:2]) == ""
