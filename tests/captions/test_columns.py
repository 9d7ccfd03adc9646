"""Which columns have the image, the caption and the split, and what their values are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.captions.test_formats import put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage
from xgpt_fairseq.captions.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    caption_texts,
    captions_in_cell,
    choose_columns,
    has_columns,
)
from xgpt_fairseq.errors import DataError


def image(record: dict[str, Any], **columns: str) -> CaptionedImage:
    return choose_columns("here", tuple(record), columns).read("here", record)


@pytest.mark.parametrize("image_column", [*IMAGE_COLUMNS, " File Name", "FileName", "IMAGE-ID"])
@pytest.mark.parametrize("caption_column", [*CAPTION_COLUMNS, " Caption "])
def test_names_of_columns(image_column: str, caption_column: str) -> None:
    record = {"width": 5, caption_column: "A dog.", image_column: "a/1.jpg", "url": "x"}
    assert has_columns(list(record), {})
    assert image(record) == CaptionedImage("a/1", "", [Caption(0, "A dog.")], "a/1.jpg")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"file_name": "a.jpg", "image_id": 7}, ("7", "a.jpg")),
        ({"image_id": "a.jpg", "image": 7}, ("a", "a.jpg")),  # only a column of ids has ids
        ({"name": "A dog", "image": "b/a.jpg"}, ("b/a", "b/a.jpg")),
        ({"image": "b/a.jpg", "filename": "a.jpg", "image_id": "x"}, ("x", "b/a.jpg")),
        ({"image": "", "filename": "a.jpg"}, ("a", "a.jpg")),
        ({"image_id": 42}, ("42", None)),
        ({"image_id": 42, "name": "COCO_val2014_000000000042"}, ("42", None)),
        ({"image": {"bytes": "…", "path": "a.jpg"}}, ("a", "a.jpg")),
        ({"file_name": "a", "image_id": 7}, ("7", "a")),  # a file, whatever it is called
        ({"filename": "a.dcm", "image_id": 7}, ("7", "a.dcm")),
        ({"filename": 12, "image_id": 7}, ("7", "12")),
        ({"filename": "x/a.dcm"}, ("x/a.dcm", "x/a.dcm")),  # alone, too
        ({"file_name": "a"}, ("a", "a")),
        ({"image": "a.dcm"}, ("a.dcm", None)),
        ({"file_name": "a", "image": "b.jpg"}, ("b", "b.jpg")),
        ({"folder": "x", "filename": "a.jpg"}, ("x/a", "x/a.jpg")),
        ({"Directory": "x", "image": "y/a.jpg"}, ("y/a", "y/a.jpg")),
        ({"filepath": "x/y", "filename": "a.jpg"}, ("x/y/a", "x/y/a.jpg")),
        ({"image": "https://x.org/a%201.jpg?w=3"}, ("https:/x.org/a 1", "https://x.org/a 1.jpg")),
        ({"image_id": 123.0}, ("123", None)),  # as pandas writes ids beside an empty one
        ({"image_id": "123.0"}, ("123", None)),
        ({"image": "1.0"}, ("1.0", None)),
    ],
)
def test_the_file_counts_before_the_id(names: dict[str, Any], expected: tuple[str, str | None]) -> None:
    found = image({**names, "text": "a"})
    assert (found.image_id, found.file_name) == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "a.jpg", "filename": "b.jpg", "text": "x"}, r"'filename' is b\.jpg and 'image' is a\.jpg"),
        ({"image": "1/a.jpg", "filename": "2/a.jpg", "text": "x"}, r"'filename' is 2/a\.jpg and 'image' is 1/a\.jpg"),
        ({"image": "a.jpg", "filename": "a.png", "text": "x"}, r"'filename' is a\.png and 'image' is a\.jpg"),
        ({"name": "a", "image_id": 3, "text": "x"}, r"'name' is a and 'image_id' is 3: .*--columns image="),
        ({"image": "a.jpg", "text": "x", "Caption": "y"}, r"'text' and 'Caption' may all be .*--columns"),
        ({"image": "", "text": "x"}, r"here: 'image' must be an image's id or file name, found ''"),
        ({"image": "a", "text": 5}, r"here: a caption must be text, found 5"),
        ({"image": "a", "text": ["x", None]}, r"here: a caption must be text, found None"),
        ({"image": "a", "text": "x", "split": 3}, r"here: 'split' must be a name, found 3"),
        ({"text": "x", "photo": 1}, r"no column is named as one of images \(file_name, .*there are: text, photo"),
        ({"image": "x", "words": 1}, r"no column is named as one of captions"),
    ],
)  # fmt: skip
def test_columns_and_values_that_are_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image(record)


def texts(record: dict[str, Any], **columns: str) -> list[str]:
    return [caption.text for caption in image({"image": "a.jpg", **record}, **columns).captions]


@pytest.mark.parametrize("name", ["caption", "Raw", "captions", "text"])
@pytest.mark.parametrize("numbered", ["{}_{}", "{}{}", "{} {}", "{}-{}", "{}.{}", "{}[{}]"])
def test_columns_of_several_captions(name: str, numbered: str) -> None:
    """A number alone is what tells them apart."""
    first, second = (numbered.format(name, number) for number in (2, 10))
    assert texts({second: "ten", first: "two", f"{name}_de": "zwei"}) == ["ten", "two"]
    assert texts({name: "one", "comment_number": 5, first: ["two", "too"], second: None}) == ["one", "two", "too"]
    assert texts({name: "one", first: "two"}, caption=name) == ["one"]
    assert texts({name: "one", "comment_2": "other"}) == ["one"]
    with pytest.raises(DataError, match="may all be captions"):
        texts({first: "two", "comment_2": "other"})
    assert texts({name: "one", first: "two", second: "ten"}, caption=f"{second}, {name}") == ["ten", "one"]


def test_columns_of_one_name() -> None:
    for chosen in ({}, {"caption": "text"}):
        columns = choose_columns("here", ["image", "text", "text"], chosen, range(3))
        assert [caption.text for caption in columns.read("here", ["a", "x", "y"]).captions] == ["x", "y"]
    with pytest.raises(DataError, match=r"2 columns are named 'image' \(--columns image=…\)"):
        choose_columns("here", ["image", "image", "text"], {"image": "image"}, range(3))


def test_columns_that_are_said() -> None:
    record = {"image": "a.jpg", "filename": "b.jpg", "text": "x", "caption": "y", "split": "val", "set": "Test"}
    found = image(record, image="filename", caption="CAPTION", split="set")
    assert found == CaptionedImage("b", "test", [Caption(0, "y")], "b.jpg")
    with pytest.raises(DataError, match=r"no column 'x' \(--columns split=…\); it has: image, filename, text, caption"):
        image(record, image="image", caption="text", split="x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("train", "train"), (" Val ", "valid"), ("restval", "train"), ("mine", "mine"), ("", ""), (None, "")],
)
def test_splits(value: str | None, expected: str) -> None:
    assert image({"image": "a", "text": "x", "split": value}).split == expected
    assert image({"image": "a", "text": "x", "set_name": value}).split == expected


TEXTS = ["A dog.", "It's \"so\" [x], 'y'", "Bär\n", "a\\"]


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(TEXTS),
        json.dumps(TEXTS, ensure_ascii=False),
        f" {TEXTS!r}\n",
        repr(tuple(TEXTS)),
        "{" + repr(TEXTS)[1:-1] + "}",
        str(np.array(TEXTS)),
        repr(np.array(TEXTS)),
        repr(np.array(TEXTS, dtype=object)),
        repr(TEXTS).replace('"It', 'u"It'),
    ],
)
def test_lists_in_cells(cell: str) -> None:
    assert captions_in_cell("here", cell) == TEXTS


@pytest.mark.parametrize("cell", ["['A dog.']", "('A dog.',)", '{"A dog."}', "array(['A dog.'],\n      dtype=object)"])
def test_lists_of_one(cell: str) -> None:
    assert captions_in_cell("here", cell) == ["A dog."]


@pytest.mark.parametrize("cell", ["[]", " [ ]", "array([], dtype=object)"])
def test_lists_of_none(cell: str) -> None:
    assert captions_in_cell("here", cell) == []


def test_lists_as_numpy_writes_them() -> None:
    """Python takes texts without a comma between them for one."""
    assert captions_in_cell("here", "['A dog.' 'A cat.'\n \"It's\"]") == ["A dog.", "A cat.", "It's"]


@pytest.mark.parametrize(
    "text",
    [
        "[removed]", "[1, 2]", "A ['x'] b", "'a'", "[a dog] runs", "[", "[['a']]", "[] is a box", "(a, b)", "('a')",
        '["stop", "go"] is on sign 1', '("stop", "go") it says', '("Hello" she says)', "{a, b}", "array of dogs",
    ],
)  # fmt: skip
def test_text_that_is_no_list(text: str) -> None:
    assert captions_in_cell("here", text) == text


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b", "['a', nan]", "['a'] b]", "['a' + 'b']", "('a', 'b", "('a', 5)", "{'en': 'a'}", "[{'en': 'a'}]",
        "array(['a', 'b", "['a')", "['\\x']", '["a", ' + "[" * 100000,
    ],
)  # fmt: skip
def test_lists_that_are_broken(text: str) -> None:
    with pytest.raises(DataError, match=r"here: the caption begins as a list does, and is none that can be read: "):
        captions_in_cell("here", text)


def test_lists_of_other_values() -> None:
    for value in ("a", 5), ({"en": "a"},):
        with pytest.raises(DataError, match=r"here: a caption must be text, found (5|\{'en': 'a'\})"):
            caption_texts("here", captions_in_cell("here", json.dumps(value)))


@pytest.mark.parametrize("cell", ["nan", "NaN", " None ", "null", "N/A", "<NA>"])
def test_missing_values(cell: str) -> None:
    assert captions_in_cell("here", cell) == ""
    assert captions_in_cell("here", f"{cell}.") == f"{cell}."


@pytest.mark.parametrize("text", ['["stop 1"]', '["stop", "go"] is on sign 1', "['a', 'b", "nan"])
def test_texts_of_json_are_as_they_are(tmp_path: Path, text: str) -> None:
    """What is no list in JSON is meant to be none."""
    assert texts({"text": text}) == [text]
    (found,) = read(put(tmp_path, "train.json", json.dumps({"a.jpg": text})))
    assert [caption.text for caption in found.captions] == [text]


# Records of one image, and photos of one id


def test_an_id_of_two_photos(tmp_path: Path) -> None:
    rows = "image_id,file_name,text\n7,a.jpg,x\n7,b.jpg,y\n"
    path = put(tmp_path, "train.csv", rows)
    with pytest.raises(DataError, match=r"line 3: image 7 is b\.jpg, before a\.jpg; .*--columns image=NAME"):
        read(path)
    found = read(path, columns={"image": "file_name"})
    assert [(image.image_id, image.captions[0].text) for image in found] == [("a", "x"), ("b", "y")]


def test_a_photo_of_two_ids(tmp_path: Path) -> None:
    path = put(tmp_path, "train.csv", "image_id,file_name,text\n1,a.jpg,x\n2,b.jpg,z\n3,a.jpg,y\n")
    with pytest.raises(DataError, match=r"photo a\.jpg has the ids 1 and 3: .*--columns image=NAME"):
        read(path)
    found = read(path, columns={"image": "file_name"})
    assert {image.image_id: [c.text for c in image.captions] for image in found} == {"a": ["x", "y"], "b": ["z"]}


def test_photos_that_differ_in_their_extension(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3: image a is a\.png, before a\.jpg"):
        read(put(tmp_path, "train.csv", "image,text\na.jpg,x\na.png,y\n"))
    (image,) = read(put(tmp_path, "train.csv", "image,text\nb/a.jpg,x\nb\\a.JPG,y\n"))
    assert [caption.text for caption in image.captions] == ["x", "y"]


def test_metadata_names_photos_of_its_own_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        path = put(tmp_path / split, "metadata.csv", "file_name,text\n1.jpg,a\n")
        (image,) = read(path)
        assert image == CaptionedImage(f"{split}/1", split, [Caption(0, "a")], f"{split}/1.jpg")
        (line,) = read(put(tmp_path / split, "metadata.jsonl", '{"file_name": "1.jpg", "text": "a"}\n'))
        assert line == image
