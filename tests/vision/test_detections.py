"""COCO's detection results: which boxes are taken, in which order, and what is wrong in a broken file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.detections import Detections


def record(image: object, score: float, box: tuple[float, ...] = (1, 2, 30, 40), category: int = 1) -> dict[str, Any]:
    return {"image_id": image, "bbox": list(box), "category_id": category, "score": score}


def read(path: Path, records: object, wanted: tuple[str, ...] = ("42", "7"), max_boxes: int = 99) -> Detections:
    path.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
    return Detections(path, wanted, max_boxes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


scores = st.lists(st.tuples(st.sampled_from(["42", "7", "x"]), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1)


@given(scores, st.integers(0, 4))
@settings(max_examples=60)
def test_the_most_confident_of_each_photo(
    tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[str, float]], max_boxes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "results.json"
    records = [record(name, score, box=(index, 0, 1, 2), category=index) for index, (name, score) in enumerate(photos)]
    wanted = {"42", "7"}
    if not wanted.intersection(name for name, _ in photos):
        with pytest.raises(DataError, match=r"has no detection of any of the photos"):
            read(path, records)
        return
    found = read(path, records, max_boxes=max_boxes)
    for name in wanted:
        mine = sorted((-score, index) for index, (photo, score) in enumerate(photos) if photo == name)
        detected = found.of(name)
        assert detected.records.tolist() == detected.categories.tolist() == [index for _, index in mine[:max_boxes]]
        assert detected.scores.tolist() == [-score for score, _ in mine[:max_boxes]]
        assert detected.boxes.tolist() == [[index, 0, index + 1, 2] for _, index in mine[:max_boxes]]
        assert detected.truncated == (len(mine) > max_boxes)
    assert found.others == sum(name == "x" for name, _ in photos)
    assert found.photos == len(wanted.intersection(name for name, _ in photos))
    assert found.boxes == sum(len(found.of(name).boxes) for name in wanted)


def test_photos_that_share_a_name(path: Path) -> None:
    found = read(path, [record("x/a/7.jpg", 1), record("b\\007.png", 0.5), record("c/7", 1)], ("a/7", "b/7"))
    assert (found.of("a/7").scores.tolist(), found.of("b/7").scores.tolist(), found.others) == ([1], [0.5], 1)
    with pytest.raises(DataError, match=r"record \[1\]: image_id '7' may be a/7 or b/7; name its folder, too"):
        read(path, [record("a/7", 1), record(7, 1)], ("a/7", "b/7"))


def test_records_of_two_photos_are_not_given_to_one(path: Path) -> None:
    """Here b/7.jpg is not among the photos, so that the id of a/7.jpg is 7 alone."""
    assert read(path, [record("a/7.jpg", 1), record("a/7.png", 1)]).boxes == 2
    with pytest.raises(DataError, match=r"record \[1\]: image_id 'b/7' is photo 7, but 'a/7' before it is, too"):
        read(path, [record("a/7.jpg", 1), record("b/7.jpg", 1)])


def test_names_of_images(path: Path) -> None:
    """COCO's numbers and its file names are one image."""
    found = read(path, [record(42, 0.5), record("COCO_val2014_000000000042.jpg", 0.25), record("000000000042", 0.75)])
    assert found.of("42").scores.tolist() == [0.75, 0.5, 0.25]
    assert len(found.of("7").boxes) == 0
    assert found.normalised("7", (10, 10)).shape == (0, 4)


def test_other_fields_and_white_space(path: Path) -> None:
    """Results of instance segmentation have more fields; some programs write a record a line."""
    more = {**record(42, 0.5), "segmentation": {"size": [4, 4], "counts": "abc]},"}, "id": 1}
    found = read(path, f" [\n{json.dumps(more)} ,\n\t{json.dumps(record(7, 1))}\n]\n")
    assert (found.boxes, found.photos) == (2, 2)


def test_normalised(path: Path) -> None:
    found = read(path, [record(42, 0.5, (10, 20, 30, 60)), record(42, 0.25, (-0.5, 0, 100.75, 200.5))])
    boxes = found.normalised("42", (100, 200))
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, [[0.1, 0.1, 0.4, 0.4], [0, 0, 1, 1]], rtol=1e-6)


def test_a_box_outside_of_its_photo(path: Path) -> None:
    found = read(path, [record(7, 1), record(42, 0.5, (10, 20, 70, 10)), record(42, 0.9)])
    with pytest.raises(
        DataError,
        match=r"results\.json, record \[1\], image 42, region 0: box \[10.0, 20.0, 80.0, 30.0\] lies outside the image "
        r"of 60 x 100 pixels by 20 pixels; 1 is allowed \(.*rotated by its EXIF orientation\)",
    ):
        found.normalised("42", (60, 100))


GOOD = record(42, 0.5)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"annotations": []}, r": not a list; COCO's results are \[{image_id, bbox, category_id, score}, …\]"),
        ("", ": not a list"),
        ([], " has no detection of any of the photos: it is empty"),
        ([record("b", 1), record("a", 1)], r" has no detection .*: such as a, while the photos are such as 42"),
        ("[1]", r", record \[0\]: 1; an object with image_id, bbox, … expected"),
        ('[{"image_id": 42', r" is not readable as JSON, record \[0\]: .*; is the file truncated\?"),
        (json.dumps([GOOD])[:-1], r" is not readable as JSON: no end of the list after record \[0\]"),
        (json.dumps([GOOD])[:-1] + ",", r" is not readable as JSON, record \[1\]: "),
        (json.dumps([GOOD])[:-1] + ",]", r" is not readable as JSON, record \[1\]: "),
        (json.dumps([GOOD]) + "[]", r" is not readable as JSON: no end of the list after record \[0\]"),
        ([GOOD, {"bbox": [1, 2, 3, 4]}], r", record \[1\]: image_id is None; a number or a name expected"),
        ([{**GOOD, "image_id": 4.5}], r", record \[0\]: image_id is 4.5; a number or a name expected"),
        ([{**GOOD, "bbox": [1, 2, 3]}], r", record \[0\], image 42: bbox is \[1, 2, 3\]; \[x, y, width, height\] in"),
        ([{**GOOD, "bbox": [1, 2, 3, "4"]}], r", record \[0\], image 42: bbox is \[1, 2, 3, '4'\]"),
        ([{**GOOD, "bbox": [1, 2, float("nan"), 4]}], r", record \[0\], image 42: bbox is \[1, 2, nan, 4\]"),
        ([{**GOOD, "bbox": [9, 9, -3, 4]}], r", record \[0\], image 42: bbox is \[9, 9, -3, 4\]; .* not be negative"),
        ([{**GOOD, "score": 1.5}], r", record \[0\], image 42: score is 1.5; a confidence in 0..1 expected"),
        ([{**GOOD, "bbox": [1, 2, 10**400, 4]}], r", record \[0\], image 42: bbox is \[1, 2, 10+; \[x, y, width"),
        ([{**GOOD, "score": 10**400}], r", record \[0\], image 42: score is 10{59}; a confidence in 0..1 expected"),
        ([{**GOOD, "score": None}], r", record \[0\], image 42: score is None"),
        (
            [{**GOOD, "category_id": "cat"}],
            r", record \[0\], image 42: category_id is 'cat'; a whole number of 64 bits expected",
        ),
    ],
)
def test_broken_files(path: Path, records: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"^{path}{message}"):
        read(path, records)


@pytest.mark.parametrize("number", [10**308, 1e308], ids=["whole", "float"])
def test_a_box_that_ends_beyond_all_numbers(path: Path, number: float) -> None:
    found = read(path, [record(42, 0.5, (number, 0, number, 1))])
    with pytest.raises(DataError, match=r"record \[0\], image 42, region 0"):
        found.normalised("42", (10, 10))


def test_no_file(path: Path) -> None:
    with pytest.raises(DataError, match=rf"{path} is not readable as JSON: .*No such file"):
        Detections(path, ["42"], 9)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=rf"{path} is not readable as JSON: "):
        Detections(path, ["42"], 9)
