"""Karpathy's layout as others write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, ReadingLog
from xgpt_fairseq.errors import DataError

IMAGE = {"filename": "1.jpg", "split": "val", "sentences": [{"raw": "A dog."}, {"raw": "It runs."}]}
EXPECTED = CaptionedImage("1", "valid", [Caption(0, "A dog."), Caption(1, "It runs.")], "1.jpg")


@pytest.mark.parametrize(
    "value",
    [
        {"images": [IMAGE], "dataset": "mine"},
        [IMAGE],
        [{**IMAGE, "split": "Val"}],
        [{**IMAGE, "sentences": ["A dog.", "It runs."]}],
    ],
)
def test_layouts(tmp_path: Path, value: Any) -> None:
    path = put(tmp_path, "dataset.json", json.dumps(value))
    assert detect(path) == "karpathy"
    assert read(path) == [EXPECTED]


def test_images_without_a_split(tmp_path: Path) -> None:
    images = [{"filename": f"{n}.jpg", "sentences": ["A dog."]} for n in range(30)]
    path = put(tmp_path, "dataset.json", json.dumps({"images": images}))
    assert {image.split for image in read(path, hold_out={"valid": 0.4})} == {"train", "valid"}
    with pytest.raises(DataError, match="of which split is image 0"):
        read(path)


def test_bad_images(tmp_path: Path) -> None:
    """Most images tell the format; the others go by --skip-bad."""
    bad = [{"filename": "2.jpg", "split": "val"}, {"split": "val", "sentences": []}, {**IMAGE, "split": 3}, 7]
    good = [{**IMAGE, "filename": f"{n}.jpg"} for n in range(10, 15)]
    path = put(tmp_path, "dataset.json", json.dumps([*bad, *good]))
    assert detect(path) == "karpathy"
    with pytest.raises(DataError, match=r"images\[0\] lacks 'sentences'.*--skip-bad N leaves up to N out"):
        read(path)
    log = ReadingLog(4)
    assert len(read(path, log=log)) == 5
    assert [message.split(": ", 1)[1][:9] for message in log.bad] == [f"images[{n}]" for n in range(4)]


@pytest.mark.parametrize(
    ("cocoid", "image_id"), [(42, "42"), (42.0, "42"), ("42.0", "42"), (None, "1"), (float("nan"), "1")]
)
def test_ids_of_coco(tmp_path: Path, cocoid: object, image_id: str) -> None:
    path = put(tmp_path, "dataset.json", json.dumps({"images": [{**IMAGE, "cocoid": cocoid}]}))
    assert [image.image_id for image in read(path)] == [image_id]


@pytest.mark.parametrize("names", [{"cocoid": True}, {"filename": None}, {"cocoid": None, "filename": ""}])
def test_names_that_are_none(tmp_path: Path, names: dict[str, Any]) -> None:
    path = put(tmp_path, "dataset.json", json.dumps({"images": [{**IMAGE, **names}]}))
    with pytest.raises(DataError, match=r"json: images\[0\]: '(cocoid|filename)' must be an image's id or file"):
        read(path)
