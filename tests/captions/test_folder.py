"""Folders of photos with their captions beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.captions.base import CaptionedImage, CaptionFile, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import FORMATS, find_format, open_source, read_captions
from xgpt_fairseq.errors import DataError


def put(folder: Path, **files: str | bytes) -> Path:
    return put_all(folder, files)


def put_all(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Files by their names; what is in a photo is not looked at."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(path: Path, **options: Any) -> list[CaptionedImage]:
    return list(read_captions(path, "folder", CaptionOptions(unknown_split="all", **options)))


def captions(images: list[CaptionedImage]) -> dict[str | None, str]:
    return {image.file_name: caption.text for image in images for caption in image.captions}


def test_text_beside_photos(tmp_path: Path) -> None:
    log = ReadingLog()
    folder = put_all(
        tmp_path / "mine",
        {
            "b.jpg": "", "b.txt": "A dog\nruns  fast.\n\n", "a.PNG": "", "a.TXT": "\ufeffEin Bär", "c.webp": "",
            "c.caption": "Cats &amp; dogs", "d.e.jpeg": "", "d.e.txt": "dotted", "f.jpg": "", "f.jpg.txt": "whole name",
            "none.jpg": "", "x/none.jpg": "", "README.txt": "About.", "x/y/1.jpg": "", "x/y/1.txt": "deep",
            "x/y/1.json": "{}", ".hidden.jpg": "", ".hidden.txt": "no",
        },
    )  # fmt: skip
    images = read(folder, log=log)
    assert captions(images) == {
        "mine/a.PNG": "Ein Bär", "mine/b.jpg": "A dog runs fast.", "mine/c.webp": "Cats & dogs",
        "mine/d.e.jpeg": "dotted", "mine/f.jpg": "whole name", "mine/x/y/1.jpg": "deep",
    }  # fmt: skip
    assert [image.image_id for image in images] == ["a", "b", "c", "d.e", "f", "x/y/1"]
    assert log.counts == {
        f"photos without a text beside them in {folder}": 2,
        f"texts without a photo beside them in {folder}": 1,
    }


def test_the_folder_says_the_split(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {}
    for place in ("set/train", "set/validation/x", "test", "val", "other", "x/Train", "trainers"):
        files |= {f"{place}/1.jpg": "", f"{place}/1.txt": place}
    images = read(put_all(tmp_path / "photos", files))
    assert {image.captions[0].text: image.split for image in images} == {
        "set/train": "train", "set/validation/x": "valid", "test": "test", "val": "valid", "other": "all",
        "x/Train": "train", "trainers": "all",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"train/val/1\.jpg: its folders say the splits train and valid"):
        read(put_all(tmp_path / "two", {"train/val/1.jpg": "", "train/val/1.txt": "a"}))
    [image] = read(put_all(tmp_path / "train", {"1.jpg": "", "1.txt": "a"}))
    assert image.split == "train"


def test_two_texts_of_a_photo(tmp_path: Path) -> None:
    same = put_all(tmp_path / "same", {"1.jpg": "", "1.txt": "A  dog\n", "1.caption": "A dog", "1.jpg.txt": " "})
    assert captions(read(same)) == {"same/1.jpg": "A dog"}
    other = put_all(
        tmp_path / "other", {"1.jpg": "", "1.txt": "A dog", "1.caption": "A cat", "2.jpg": "", "2.txt": "B"}
    )
    with pytest.raises(
        DataError, match=r"other/1\.jpg has different captions: 'A cat' in 1\.caption, 'A dog' in 1\.txt"
    ):
        read(other)
    log = ReadingLog(skip_bad=1)
    assert captions(read(other, log=log)) == {"other/2.jpg": "B"}
    assert len(log.bad) == 1


def test_two_photos_of_a_text(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "two", {"1.jpg": "", "1.png": "", "1.txt": "A dog"})
    with pytest.raises(DataError, match=r"two/1\.txt: is it the caption of 1\.jpg or of 1\.png, both beside it"):
        read(folder)
    put(folder, **{"1.txt": "", "1.jpg.txt": "A", "1.png.txt": "B"})
    (folder / "1.txt").unlink()
    with pytest.raises(DataError, match="image 1 is listed twice"):
        read(folder)


def test_a_blank_text(tmp_path: Path) -> None:
    log = ReadingLog()
    [image] = read(put_all(tmp_path / "blank", {"1.jpg": "", "1.txt": " \n"}), log=log)
    assert image.captions == []
    assert log.counts == {"blank captions left out": 1}


def test_a_text_that_is_none(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "bad", {"1.jpg": "", "1.txt": b"A caf\xe9"})
    with pytest.raises(DataError, match=r"bad/1\.txt is not UTF-8 text: unexpected end of data at byte 5 \(--skip-bad"):
        read(folder)


def test_recognised(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "photos", {"x/1.jpg": "", "x/1.txt": "A dog", "captions.txt": "image,caption\n"})
    assert open_source(folder).format.name == "folder"
    assert [each.name for each in FORMATS.values() if each.recognise(CaptionFile(folder))] == ["folder"]
    for name, files in {
        "photos alone": {"1.jpg": ""},
        "text alone": {"1.txt": "a"},
        "elsewhere": {"photos/1.jpg": "", "captions/1.txt": ""},
        "nothing": {},
    }.items():
        other = put_all(tmp_path / name, dict(files))
        assert find_format(CaptionFile(other)) is None
        with pytest.raises(DataError, match=f"{name}: no photo has a .txt or .caption of its name beside it$"):
            read(other)
    assert not FORMATS["folder"].recognise(CaptionFile(folder / "captions.txt"))
    with pytest.raises(DataError, match="gone cannot be listed: No such file"):
        read(tmp_path / "gone")


@pytest.mark.parametrize("name", ["metadata.jsonl", "train/metadata.csv"])
def test_the_captions_of_imagefolder_are_named_in_the_error(tmp_path: Path, name: str) -> None:
    line = json.dumps({"file_name": "1.jpg", "text": "A dog"})
    folder = put_all(tmp_path / "hf", {"train/1.jpg": "", name: line})
    assert open_source(folder).format.name == "folder"
    with pytest.raises(DataError, match=f"beside it; its captions are in {folder / name}: name that"):
        list(read_captions(folder))
