"""A JSON object of names and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, ReadingLog
from xgpt_fairseq.captions.registry import find_format
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
