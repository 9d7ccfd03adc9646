"""A JSON object of names and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import find_format, open_source, read_sources
from xgpt_fairseq.errors import DataError


@pytest.mark.parametrize(
    ("name", "image_id", "file_name"),
    [("a.jpg", "a", "a.jpg"), ("b c/a.jpg", "b c/a", "b c/a.jpg"), ("dög", "dög", None), ("0042", "42", None)],
)
@pytest.mark.parametrize(
    ("value", "captions", "split"),
    [
        ("A dog.", ["A dog."], ""),
        (["A dog.", "Ein Bär."], ["A dog.", "Ein Bär."], ""),
        ("['A dog.', 'A cat.']", ["['A dog.', 'A cat.']"], ""),
        ({"caption": "A dog."}, ["A dog."], ""),
        ({"caption1": "A dog.", "caption2": "A cat.", "caption3": None, "split": "val"}, ["A dog.", "A cat."], "valid"),
        ({"captions": ["A dog.", "A cat."], "split": "val", "width": 5}, ["A dog.", "A cat."], "valid"),
    ],
)
def test_names(
    tmp_path: Path, name: str, image_id: str, file_name: str, value: Any, captions: list[str], split: str
) -> None:
    path = put(tmp_path, "captions.json", json.dumps({name: value, "other": ""}))
    assert detect(path) == "json-names"
    first, other = read(path, unknown_split="")
    expected = [Caption(place, text) for place, text in enumerate(captions)]
    assert first == CaptionedImage(image_id, split, expected, file_name)
    assert other.captions == []


def test_one_record_is_no_object_of_names(tmp_path: Path) -> None:
    assert detect(put(tmp_path, "line.json", '{"image": "1.jpg", "caption": "a"}')) == "jsonl"
    path = put(tmp_path, "line.json", '{"image": "1.jpg",\n"caption": "a"}')
    assert find_format(CaptionFile(path)) is None


def test_records_under_keys_that_are_no_names(tmp_path: Path) -> None:
    """As pandas writes rows by their index: row 1 is about 0.jpg, not about a photo called 1."""
    rows = {str(n): {"filename": f"{1 - n // 2}.jpg", "caption": f"c{n}", "split": "val"} for n in range(4)}
    path = put(tmp_path, "captions.json", json.dumps(rows))
    assert detect(path) == "json-records"
    assert read(path) == [
        CaptionedImage("1", "valid", [Caption(0, "c0"), Caption(1, "c1")], "1.jpg"),
        CaptionedImage("0", "valid", [Caption(0, "c2"), Caption(1, "c3")], "0.jpg"),
    ]
    path = put(tmp_path, "captions.json", json.dumps({"1": {"photo": "2.jpg", "words": "x"}}))
    columns = {"image": "photo", "caption": "words"}
    assert read(path, columns=columns, unknown_split="") == [CaptionedImage("2", "", [Caption(0, "x")], "2.jpg")]


def test_names_of_photos_over_values_that_name_an_image(tmp_path: Path) -> None:
    path = put(tmp_path, "captions.json", json.dumps({"a/1.jpg": {"image_id": 7, "caption": "x"}}))
    assert detect(path) == "json-names"
    assert read(path, unknown_split="") == [CaptionedImage("7", "", [Caption(0, "x")], "a/1.jpg")]
    path = put(tmp_path, "captions.json", json.dumps({"1.jpg": {"image": "2.jpg", "caption": "x"}}))
    with pytest.raises(DataError, match=r"'1\.jpg': 'the key' is 1\.jpg and 'image' is 2\.jpg: say which names"):
        read(path, unknown_split="")
    (image,) = read(path, unknown_split="", columns={"image": "image"})
    assert image.file_name == "2.jpg"


@pytest.mark.parametrize(
    "value",
    [
        {"images": ["0.jpg", "1.jpg"], "captions": ["A dog.", "A cat."]},
        {"image_urls": ["http://x.org/0", "http://x.org/1"], "user_ids": ["a@N08", "b@N08"], "lines": ["A.", "B."]},
        {"paths": ["0.jpg", "1.jpg"], "lines": ["A dog.", "A cat."], "labels": ["a", "b"]},
        {"name": "my data", "description": "photos of stripes", "version": "1.0"},
        {"train": ["0.jpg", "1.jpg"], "val": ["2.jpg"]},
        {"set": "a", "version": "1", "data": [{"words": "x"}]},
    ],
)
def test_what_are_no_names(tmp_path: Path, value: Any) -> None:
    """Or names of files, ids and URLs would be learned as captions."""
    assert find_format(CaptionFile(put(tmp_path, "train.json", json.dumps(value)))) is None


def test_names_of_each_split(tmp_path: Path) -> None:
    value = {"train": {"1.jpg": "A.", "2.jpg": ["B.", "C."]}, "dev": {"3.jpg": {"caption": "D."}}}
    path = put(tmp_path, "captions.json", json.dumps(value))
    assert detect(path) == "json-names"
    assert [(image.file_name, image.split) for image in read(path)] == [
        ("1.jpg", "train"),
        ("2.jpg", "train"),
        ("3.jpg", "valid"),
    ]


def test_a_value_that_is_no_caption(tmp_path: Path) -> None:
    """Most values tell; the others go by --skip-bad."""
    value = {"1.jpg": "A.", "2.jpg": None, "3.jpg": {"words": "x"}, "4.jpg": "B.", "5.jpg": ["C."]}
    path = put(tmp_path, "captions.json", json.dumps(value))
    with pytest.raises(DataError, match=r"'2\.jpg': a caption must be text, found None"):
        read(path, unknown_split="")
    assert len(read(path, unknown_split="", log=ReadingLog(2))) == 3


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    """JSON's parser would keep the last, and lose captions."""
    path = put(tmp_path, "train.json", '{"a.jpg": "x", "b.jpg": "y", "a.jpg": "z"}')
    with pytest.raises(DataError, match=r"train\.json: 'a\.jpg' is there twice; an image's captions are a list"):
        read(path)
    with pytest.raises(DataError, match=r"image a is listed twice"):
        read(put(tmp_path, "train.json", '{"a.jpg": "x", "a.png": "y"}'))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"'b\.jpg': a caption must be text, found 5"),
        (None, r"'b\.jpg': a caption must be text, found None"),
        (["x", 5], r"'b\.jpg': a caption must be text, found 5"),
        ({"words": "x"}, r"'b\.jpg': no column is named as one of captions"),
        ({"caption": "x", "text": "y"}, r"'b\.jpg': 'text' and 'caption' may all be captions"),
    ],
)
def test_bad_values(tmp_path: Path, value: Any, message: str) -> None:
    path = put(tmp_path, "train.json", json.dumps({"a.jpg": "x", "b.jpg": value}))
    with pytest.raises(DataError, match=message):
        read(path, "json-names")
    assert [image.image_id for image in read(path, "json-names", log=ReadingLog(1))] == ["a"]


def test_captions_under_a_key_that_columns_name(tmp_path: Path) -> None:
    path = put(tmp_path, "captions.json", json.dumps({f"{n}.jpg": {"description": f"Dog {n}."} for n in (1, 2)}))
    assert find_format(CaptionFile(path)) is None
    columns = {"caption": "description"}
    source = open_source(path, columns=columns)
    assert source.format.name == "json-names"
    options = CaptionOptions(unknown_split="", columns=columns)
    assert [image.captions[0].text for image in read_sources([source], options)] == ["Dog 1.", "Dog 2."]
