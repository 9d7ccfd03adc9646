"""Reading references: the order, the ids, and every error by its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.references import References, find_references, read_references
from xgpt_fairseq.errors import DataError

COCO = {
    "images": [{"id": 42}, {"id": "000000000007.jpg"}, {"id": "park"}],
    "annotations": [
        {"id": 0, "image_id": "park", "caption": "A park."},
        {"id": 1, "image_id": 42, "caption": "A dog."},
        {"id": 2, "image_id": 7, "caption": "A cat."},
        {"id": 3, "image_id": "COCO_val2014_000000000042", "caption": "The dog."},
    ],
}


def written(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def references(tmp_path: Path) -> References:
    return read_references(written(tmp_path / "test.references.json", COCO))


def test_references_keep_the_order_of_the_images(references: References) -> None:
    assert references.image_ids == ["42", "7", "park"]
    assert references.captions == {"42": ["A dog.", "The dog."], "7": ["A cat."], "park": ["A park."]}


def test_ids_of_captions_do_not_matter_and_blank_ones_count(tmp_path: Path) -> None:
    content = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": text, "id": text} for text in "a "]}
    assert read_references(written(tmp_path / "r.json", content)).captions == {"1": ["a", " "]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n oops", r"references\.json:2: not JSON"),
        ([], "has no lists 'images' and 'annotations'"),
        ({"images": [{"id": 1}]}, "has no lists 'images' and 'annotations'"),
        ({"images": [], "annotations": []}, '"images" is empty'),
        ({**COCO, "images": [{"id": 42}, {"name": 7}]}, r"images\[1\] lacks 'id'"),
        ({**COCO, "images": [{"id": 42}, 7]}, r"images\[1\] lacks 'id'"),
        ({**COCO, "images": [{"id": 42}, {"id": "42.jpg"}]}, r"references\.json: image 42 is listed twice"),
        ({**COCO, "images": [*COCO["images"], {"id": 8}, {"id": 9}]}, r"2 images \(8, 9\) without a caption"),
        ({**COCO, "images": COCO["images"][:1]}, r"annotations\[0\]: image park is not among the file's 'images'"),
        ({**COCO, "annotations": [{"caption": "A dog."}]}, r"annotations\[0\] lacks 'image_id'"),
        ({**COCO, "annotations": [{"image_id": True, "caption": ""}]}, r"'image_id' must be .*, found True"),
        ({**COCO, "annotations": [{"image_id": 42, "caption": 7}]}, "a caption must be text, found 7"),
        ({**COCO, "annotations": [{"image_id": 42}]}, r"annotations\[0\] lacks 'caption'"),
    ],
)
def test_references_errors(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_references(written(tmp_path / "references.json", content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: cannot be read: No such file"):
        read_references(tmp_path / "missing")
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="photo is not UTF-8 text"):
        read_references(tmp_path / "photo")


KARPATHY = {
    "images": [
        {"filename": "b.jpg", "split": "train", "sentences": [{"raw": "A bus."}]},
        {"filename": "a.jpg", "split": "val", "sentences": [{"raw": "A dog."}, {"raw": "The dog."}]},
        {"filename": "c.jpg", "split": "val", "sentences": [{"raw": " "}]},
    ]
}


def test_references_of_any_caption_file(tmp_path: Path) -> None:
    path = written(tmp_path / "dataset.json", KARPATHY)
    options = CaptionOptions()
    found = find_references(path, "val", options=options)
    assert (found.captions, found.file_names, found.is_ordered) == ({"a": ["A dog.", "The dog."]}, {"a": "a.jpg"}, True)
    assert options.log.counts["images without a caption left out of the references"] == 1
    with pytest.raises(DataError, match="has images of splits train, valid: say which by --split"):
        find_references(path)
    with pytest.raises(DataError, match="no images of split 'test'; it has: train, valid"):
        find_references(path, "test")


def test_references_without_splits(tmp_path: Path) -> None:
    lines = '{"image": "x/a.jpg", "caption": "A dog."}\n{"image": "b.jpg", "caption": "A cat."}\n'
    found = find_references(written(tmp_path / "captions.jsonl", lines))
    assert found.captions == {"x/a": ["A dog."], "b": ["A cat."]}
    assert not found.is_ordered  # captions of one image may stand apart in such files


def test_captions_that_coco_files_withdraw_are_no_references(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"id": 0, "image_id": 1, "caption": "Quality issues.", "is_precanned": True},
            {"id": 1, "image_id": 1, "caption": "A dog.", "is_precanned": False},
        ],
    }
    assert find_references(written(tmp_path / "val.json", content)).captions == {"1": ["A dog."]}


def test_the_references_of_a_data_directory_are_read_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "test.references.json", COCO)
    assert find_references(path, "test") == find_references(path) == read_references(path)
    with pytest.raises(DataError, match="is of one split; --split val"):
        find_references(path, "val")


def test_ids_of_a_data_directory_stay_as_they_are(tmp_path: Path) -> None:
    """Of photos with two extensions, which are no names of files: 1.png and 1 are two images."""
    ids = [1, "1.png", "0.jpg", 0]
    content = {
        "images": [{"id": image_id} for image_id in ids],
        "annotations": [{"id": n, "image_id": image_id, "caption": f"c {n}"} for n, image_id in enumerate(ids)],
    }
    path = written(tmp_path / "test.references.json", content)
    with pytest.raises(DataError, match="image 1 is listed twice"):  # in a folder of anything, they may be files
        read_references(path)
    for name in ("dict.txt", "dataset.json"):
        (tmp_path / name).touch()
    expected = {"1": ["c 0"], "1.png": ["c 1"], "0.jpg": ["c 2"], "0": ["c 3"]}
    assert read_references(path).captions == find_references(path).captions == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "has no lists 'images' and 'annotations'"), ("{", "not JSON"), ("A dog.", "not a caption file of a known")],
)
def test_what_is_no_references(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_references(written(tmp_path / "references.txt", content))
    with pytest.raises(DataError, match="nowhere: cannot be read"):
        find_references(tmp_path / "nowhere")
