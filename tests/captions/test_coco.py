"""COCO's layout, whatever annotations call their captions, and with annotations that are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, ReadingLog
from xgpt_fairseq.captions.registry import find_format
from xgpt_fairseq.errors import DataError


def coco(annotations: list[Any]) -> str:
    """Ids that count otherwise than the files' names do."""
    images = [{"id": n, "file_name": f"{3 - n}.jpg"} for n in (1, 2)]
    return json.dumps({"images": images, "annotations": annotations})


EXPECTED = [
    CaptionedImage("1", "", [Caption(0, "A."), Caption(2, "C.")], "2.jpg"),
    CaptionedImage("2", "", [Caption(1, "B.")], "1.jpg"),
]


@pytest.mark.parametrize(
    ("key", "columns"),
    [("caption", {}), ("text", {}), ("captions", {}), ("text", {"caption": "text"}), ("words", {"caption": "words"})],
)
def test_keys_of_captions(tmp_path: Path, key: str, columns: Mapping[str, str]) -> None:
    """One list of the two, read as records, would pair ids with the files' names."""
    captions = [(1, "A."), (2, "B."), (1, "C.")]
    annotations = [{"image_id": image, "id": n, key: text} for n, (image, text) in enumerate(captions)]
    path = put(tmp_path, "captions.json", coco(annotations))
    found = find_format(CaptionFile(path, columns))
    assert found is not None and found.name == "coco"
    assert read(path, columns=columns, unknown_split="") == EXPECTED


def test_a_caption_beside_another_text(tmp_path: Path) -> None:
    path = put(tmp_path, "captions.json", coco([{"image_id": 1, "caption": "A.", "text": "B."}]))
    for columns, text in (({}, "A."), ({"caption": "text"}, "B.")):
        assert read(path, columns=columns, unknown_split="")[0].captions == [Caption(0, text)]
    path = put(tmp_path, "captions.json", coco([{"image_id": 1, "raw": "A.", "text": "B."}]))
    with pytest.raises(DataError, match=r"'raw' and 'text' of the annotations may all be captions: .*--columns"):
        read(path, unknown_split="")


def test_lists_of_captions_and_ids_that_are_no_numbers(tmp_path: Path) -> None:
    path = put(tmp_path, "captions.json", coco([{"image_id": 1, "id": "x", "caption": ["A.", "B."]}]))
    assert read(path, unknown_split="")[0].captions == [Caption(0, "A."), Caption(0, "B.")]


def test_a_split_of_images(tmp_path: Path) -> None:
    """Or test images would be held out anew, and most of them be trained on."""
    images = [{"id": n, "file_name": f"{n}.jpg", "Fold": "test" if n < 20 else "train"} for n in range(40)]
    annotations = [{"image_id": n, "caption": "A."} for n in range(40)]
    path = put(tmp_path, "captions.json", json.dumps({"images": images, "annotations": annotations}))
    found = read(path, columns={"split": "fold"}, hold_out={"valid": 0.4}, is_only_source=True)
    assert {image.split for image in found[:20]} == {"test"}
    assert {image.split for image in found[20:]} == {"train", "valid"}
    images[7].pop("Fold")
    path = put(tmp_path, "captions.json", json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(DataError, match=r"image 7 has no 'fold' \(--columns split=…\); it has: id, file_name"):
        read(path, columns={"split": "fold"}, unknown_split="")


def test_annotations_that_are_no_captions(tmp_path: Path) -> None:
    good = [{"image_id": 1, "caption": "A."}, {"image_id": 2, "caption": "B."}]
    box = {"image_id": 1, "bbox": [0, 0, 1, 1]}
    bad = [box, {"image_id": 9, "caption": "of an image that is not listed"}, {"image_id": 2, "caption": None}]
    path = put(tmp_path, "captions.json", coco([box, *good, *good, *bad[1:]]))
    assert detect(path) == "coco"
    with pytest.raises(DataError, match=r"annotations\[0\] lacks 'caption'.*--skip-bad N leaves up to N out"):
        read(path, unknown_split="")
    log = ReadingLog(3)
    first, _ = read(path, unknown_split="", log=log)
    assert [caption.text for caption in first.captions] == ["A.", "A."]
    assert len(log.bad) == 3
    assert find_format(CaptionFile(put(tmp_path, "boxes.json", coco([box, box, good[0]])))) is None


@pytest.mark.parametrize("convert", [float, "{}.0".format])
def test_ids_that_became_floats(tmp_path: Path, convert: Callable[[int], object]) -> None:
    images = [{"id": convert(n), "file_name": f"{n}.jpg"} for n in (41, 42)]
    annotations = [{"image_id": 42, "caption": "A."}, {"image_id": convert(41), "caption": "B."}]
    path = put(tmp_path, "captions.json", json.dumps({"images": images, "annotations": annotations}))
    assert read(path, unknown_split="") == [
        CaptionedImage("41", "", [Caption(1, "B.")], "41.jpg"),
        CaptionedImage("42", "", [Caption(0, "A.")], "42.jpg"),
    ]
