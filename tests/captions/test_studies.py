"""Reports of studies with several photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, ReadingLog
from xgpt_fairseq.errors import DataError

STUDY = {"id": "CXR2384", "report": "Lungs are clear .", "image_path": ["CXR2384/0.png", "CXR2384/1.png"]}


@pytest.mark.parametrize("split_in_record", [True, False])
def test_each_photo_of_a_study_has_its_report(tmp_path: Path, split_in_record: bool) -> None:
    value = {
        split: [{**STUDY, "image_path": [f"{split}/0.png", f"{split}/1.png"]}] for split in ("train", "val", "test")
    }
    if split_in_record:
        value = {split: [{**studies[0], "split": split}] for split, studies in value.items()}
    path = put(tmp_path, "annotation.json", json.dumps(value))
    assert detect(path) == "studies"
    report = [Caption(0, "Lungs are clear .")]
    assert read(path) == [
        CaptionedImage(f"{folder}/{n}", split, report, f"{folder}/{n}.png")
        for folder, split in (("train", "train"), ("val", "valid"), ("test", "test"))
        for n in (0, 1)
    ]


def test_one_photo_as_text(tmp_path: Path) -> None:
    value = {"train": [{**STUDY, "image_path": "a.jpg"}, {**STUDY, "image_path": ["a.jpg", "a.jpg"], "report": "x"}]}
    (image,) = read(put(tmp_path, "annotation.json", json.dumps(value)))
    assert [caption.text for caption in image.captions] == ["Lungs are clear .", "x"]


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({**STUDY, "report": None}, r"train\[1\]: a caption must be text, found None"),
        ({**STUDY, "image_path": []}, r"train\[1\]: 'image_path' names no photo"),
        ({**STUDY, "image_path": [["a"]]}, r"train\[1\]: 'image_path' must be an image's id or file name"),
        ({**STUDY, "split": 3}, r"train\[1\]: 'split' must be a name, found 3"),
    ],
)
def test_bad_studies(tmp_path: Path, study: dict[str, Any], message: str) -> None:
    path = put(tmp_path, "annotation.json", json.dumps({"train": [{**STUDY, "image_path": ["ok.png"]}, study]}))
    with pytest.raises(DataError, match=message):
        read(path)
    assert [image.image_id for image in read(path, log=ReadingLog(1))] == ["ok"]
