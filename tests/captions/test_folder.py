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


def captions(images: list[CaptionedImage]) -> dict[str, str]:
    """Path of the photo below the source's folder → caption."""
    paths = {str(image.file_name).partition("/")[2]: image for image in images}
    return {path: caption.text for path, image in paths.items() for caption in image.captions}


def test_text_beside_photos(tmp_path: Path) -> None:
    log = ReadingLog()
    folder = put_all(
        tmp_path / "mine",
        {
            "b.jpg": "", "b.txt": "A dog runs  fast.\n\n", "a.PNG": "", "a.TXT": "\ufeffEin Bär", "c.webp": "",
            "c.caption": "Cats &amp; dogs", "d.e.jpeg": "", "d.e.txt": "dotted", "f.jpg": "", "f.jpg.txt": "whole name",
            "none.jpg": "", "x/none.jpg": "", "README.txt": "About.", "x/y/1.jpg": "", "x/y/1.txt": "deep",
            "x/y/1.json": "{}", ".hidden.jpg": "", ".hidden.txt": "no",
        },
    )  # fmt: skip
    images = read(folder, log=log)
    assert captions(images) == {
        "a.PNG": "Ein Bär", "b.jpg": "A dog runs fast.", "c.webp": "Cats & dogs",
        "d.e.jpeg": "dotted", "f.jpg": "whole name", "x/y/1.jpg": "deep",
    }  # fmt: skip
    assert [image.image_id for image in images] == ["a", "b", "c", "d.e", "f", "x/y/1"]
    assert log.counts == {
        f"photos without a text in {folder}": 2,
        f"texts without a photo in {folder}": 1,
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
    assert captions(read(same)) == {"1.jpg": "A dog"}
    other = put_all(
        tmp_path / "other", {"1.jpg": "", "1.txt": "A dog", "1.caption": "A cat", "2.jpg": "", "2.txt": "B"}
    )
    with pytest.raises(
        DataError, match=r"other/1\.jpg has different captions: 'A cat' in 1\.caption, 'A dog' in 1\.txt"
    ):
        read(other)
    log = ReadingLog(skip_bad=1)
    assert captions(read(other, log=log)) == {"2.jpg": "B"}
    assert len(log.bad) == 1


def test_two_photos_of_a_text(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "two", {"1.jpg": "", "1.png": "", "1.txt": "A dog"})
    with pytest.raises(DataError, match=r"two/1\.txt: is it the caption of 1\.jpg or of 1\.png\?"):
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
        "elsewhere": {"photos/1.jpg": "", "captions/a/1.txt": ""},
        "nothing": {},
    }.items():
        other = put_all(tmp_path / name, dict(files))
        assert find_format(CaptionFile(other)) is None
        with pytest.raises(DataError, match=r"known format .* of texts whose photos lie elsewhere, name the folder"):
            open_source(other)
        with pytest.raises(DataError, match=f"{name}: no photo has a .txt or .caption of its name beside it$"):
            read(other)
    assert not FORMATS["folder"].recognise(CaptionFile(folder / "captions.txt"))
    with pytest.raises(DataError, match="gone cannot be listed: No such file"):
        read(tmp_path / "gone")


def test_each_line_of_a_text_is_a_caption(tmp_path: Path) -> None:
    """As in CUB-200 and Oxford-102, which have ten a file."""
    log = ReadingLog()
    files: dict[str, str | bytes] = {
        "1.jpg": "",
        "1.txt": "\ufeffA  bird.\r\n\r\n A blue &amp; red one.\n",
        "2.jpg": "",
    }
    files |= {"2.txt": "One.\n\n", "2.caption": "One.", "3.jpg": "", "3.txt": "a\nb", "3.caption": "a b"}
    images = read(put_all(tmp_path / "birds", files), log=log)
    assert [[caption.text for caption in image.captions] for image in images] == [
        ["A bird.", "A blue & red one."], ["One."], ["a b"],
    ]  # fmt: skip
    assert log.counts == {"texts of several lines, of which each is a caption": 1}
    with pytest.raises(
        DataError, match=r"1\.txt has numbers alone, '0 0\.5 0\.5 1e-1 \.2': boxes of a detector are no"
    ):
        read(put_all(tmp_path / "yolo", {"1.jpg": "", "1.txt": "0 0.5 0.5 1e-1 .2\n15 0 0 1 1\n"}))


def test_texts_in_folders_of_their_own(tmp_path: Path) -> None:
    log = ReadingLog()
    files: dict[str, str | bytes] = {
        "images/a/1.jpg": "",
        "text/a/1.txt": "one",
        "images/a/2.jpg": "",
        "text/3.txt": "",
    }
    files |= {"x/photos/train/4.jpg": "", "x/captions/train/4.jpg.txt": "four", "y/5.jpg": "", "y/5.txt": "five"}
    folder = put_all(tmp_path / "birds", files)
    assert open_source(folder).format.name == "folder"
    images = read(folder, log=log)
    assert captions(images) == {"images/a/1.jpg": "one", "x/photos/train/4.jpg": "four", "y/5.jpg": "five"}
    assert [image.split for image in images] == ["all", "train", "all"]
    assert log.counts == {f"photos without a text in {folder}": 1, f"texts without a photo in {folder}": 1}
    put_all(folder, {"more/a/1.txt": "another"})
    with pytest.raises(DataError, match=r"a/1\.jpg: its text may be .*more/a/1\.txt or .*text/a/1\.txt; leave one of"):
        read(folder)
    assert "images/a/1.jpg" not in captions(read(folder, log=ReadingLog(skip_bad=1)))
    (folder / "more/a/1.txt").unlink()
    put_all(folder, {"masks/a/1.jpg": ""})
    with pytest.raises(DataError, match=r"text/a/1\.txt: is it the caption of images/a/1\.jpg or of masks/a/1\.jpg\?"):
        read(folder)


def test_texts_of_another_folder_of_photos(tmp_path: Path) -> None:
    """Where some photos have texts beside them, or there are photos beside the texts, names may be equal by chance."""
    files: dict[str, str | bytes] = {"a/1.jpg": "", "a/1.txt": "one", "a/2.jpg": "", "b/2.txt": "two", "c/2.txt": "x"}
    log = ReadingLog()
    assert captions(read(put_all(tmp_path / "one", files), log=log)) == {"a/1.jpg": "one"}
    assert sorted(log.counts.values()) == [1, 2]
    other = put_all(tmp_path / "two", {"a/1.jpg": "", "b/1.txt": "one", "b/2.jpg": "", "b/3.jpg": "", "b/3.txt": "3"})
    assert captions(read(other)) == {"b/3.jpg": "3"}


def test_names_that_are_written_in_two_ways(tmp_path: Path) -> None:
    """Accents of one name may be letters of their own in the other; what differs in case may be another photo."""
    folder = put_all(tmp_path / "accents", {"caf\u00e9.jpg": "", "cafe\u0301.txt": "A café"})
    assert captions(read(folder)) == {"caf\u00e9.jpg": "A café"}
    put_all(folder, {"IMG_1.jpg": "", "img_1.txt": "A dog", "IMG_2.jpg": "", "img_2.jpg": "", "img_2.txt": "A cat"})
    with pytest.raises(
        DataError, match=r"img_1\.txt: is it the text of IMG_1\.jpg beside it\? Their names differ in ca"
    ):
        read(folder)
    log = ReadingLog(skip_bad=1)
    assert captions(read(folder, log=log)) == {"caf\u00e9.jpg": "A café", "img_2.jpg": "A cat"}
    assert log.counts == {f"photos without a text in {folder}": 1, f"texts without a photo in {folder}": 1}
    alone = put_all(tmp_path / "case", {"A.jpg": "", "a.txt": "A dog"})
    assert open_source(alone).format.name == "folder"


def test_json_beside_photos(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"1.jpg": "", "1.json": '{"caption": "one", "comment": "x"}', "2.jpg": ""}
    files |= {"2.json": '{"captions": ["two", "2"]}', "3.jpg": "", "3.json": '{"key": 3, "prompt": "three"}'}
    files |= {"4.jpg": "", "4.json": '{"caption": "not this"}', "4.txt": "four"}
    folder, log = put_all(tmp_path / "json", files), ReadingLog()
    images = read(folder, log=log)
    assert [[caption.text for caption in image.captions] for image in images] == [["one"], ["two", "2"], ["four"]]
    assert log.counts == {f"photos without a text in {folder}": 1}
    assert captions(read(folder, columns={"caption": "prompt"})) == {"3.jpg": "three", "4.jpg": "four"}
    for name in ("1", "2", "4"):
        (folder / f"{name}.jpg").unlink()
    with pytest.raises(
        DataError, match=r"; .*json/3\.json has none of text, .*, it has: key, prompt \(--columns caption="
    ):
        read(folder)


def test_what_the_programs_write_is_no_text(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"1.jpg": "", "1.txt": "one", "regions.unreadable.txt": "", "words/dict.txt": ""}
    files |= {"regions/store.json": "", "regions/ids.npy": "", "words/vocabulary.json": "", "data/dict.txt": ""}
    files |= {"data/dataset.json": "", "data/bad-records.txt": "", "my.unreadable.txt": "", "dict.txt": ""}
    folder, log = put_all(tmp_path / "all", files), ReadingLog()
    assert captions(read(folder, log=log)) == {"1.jpg": "one"}
    assert log.counts == {f"texts without a photo in {folder}": 2}


@pytest.mark.parametrize("name", ["metadata.jsonl", "train/metadata.csv"])
def test_the_captions_of_imagefolder_are_named_in_the_error(tmp_path: Path, name: str) -> None:
    line = json.dumps({"file_name": "1.jpg", "text": "A dog"})
    folder = put_all(tmp_path / "hf", {"train/1.jpg": "", name: line})
    assert open_source(folder).format.name == "folder"
    with pytest.raises(DataError, match=f"beside it; its captions are in {folder / name}: name that"):
        list(read_captions(folder))
    put_all(folder, {"train/1.txt": "1girl, solo"})
    with pytest.raises(
        DataError, match=f"hf has captions in {folder / name}, and {folder}/train/1.txt beside a photo: "
    ):
        list(read_captions(folder))
