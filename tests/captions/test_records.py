"""Records of JSON: lines, lists, and lists in an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import COCO, KARPATHY, detect, put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, ReadingLog
from xgpt_fairseq.captions.registry import find_format
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import HEAD_BYTES, first_lines

ROWS = [
    {"image": "images/1.jpg", "caption": ["A dog.", "A cat."], "image_id": 0},
    {"image": "images/2.jpg", "caption": ["A bus."], "image_id": 1},
    {"image": "images/1.jpg", "caption": ["A third."], "image_id": 0},
]
EXPECTED = [
    CaptionedImage("1", "", [Caption(0, "A bus.")], "images/2.jpg"),
    CaptionedImage("0", "", [Caption(0, "A dog."), Caption(1, "A cat."), Caption(2, "A third.")], "images/1.jpg"),
]


def without_split(images: list[CaptionedImage]) -> list[CaptionedImage]:
    return [CaptionedImage(image.image_id, "", image.captions, image.file_name) for image in images]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", json.dumps(ROWS), "json-records"),
        ("a.json", json.dumps(ROWS, indent=2), "json-records"),
        ("a.json", "[" + ",\n".join(map(json.dumps, ROWS)) + "]", "json-records"),
        ("a.json", json.dumps({"info": {}, "version": 1, "licenses": [], "data": ROWS}), "json-records"),
        ("a.json", json.dumps({"annotations": ROWS}), "json-records"),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)), "jsonl"),
        ("a.json", "\n".join(map(json.dumps, ROWS)), "jsonl"),
        ("a.txt", "\n".join(map(json.dumps, ROWS)), "jsonl"),
    ],
)
def test_records(tmp_path: Path, name: str, content: str, expected: str) -> None:
    path = put(tmp_path, name, content)
    assert detect(path) == expected
    assert without_split(read(path, unknown_split="all")) == EXPECTED


@pytest.mark.parametrize("kilobytes", [1, 40, 70, 100])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_lines_of_any_length(tmp_path: Path, name: str, kilobytes: int) -> None:
    """As of Localized Narratives, whose records have a trace of the mouse; `HEAD_BYTES` are 64 KiB."""
    more = {"trace": "x" * (kilobytes << 10)}
    records = [json.dumps({"image": f"{n}.jpg", "caption": "A.", **more}) for n in range(4)]
    path = put(tmp_path, name, "\ufeff\n" + "\n\n".join(records))
    assert detect(path) == "jsonl"
    assert [image.image_id for image in read(path, unknown_split="all")] == ["0", "1", "2", "3"]
    path = put(tmp_path, name, json.dumps({**KARPATHY, **more}) + "\n \n")  # one value in one line
    assert len(first_lines(path)) == 1 and detect(path) == "karpathy"


def test_of_a_line_that_is_too_long_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first two lines: a value in one line may have a gigabyte."""
    monkeypatch.setattr("xgpt_fairseq.io.text_lines.LONGEST_LINE", 1000)
    path = put(tmp_path, "a.json", json.dumps({"image": "x" * (HEAD_BYTES + 2000)}) + '\n{"image": "1.jpg"}\n')
    assert [len(line) for line in first_lines(path)] == [HEAD_BYTES]


def test_textcaps(tmp_path: Path) -> None:
    """A record a caption; the others of the photo, which each repeats, are not taken again."""
    data: list[dict[str, Any]] = [
        {"image_id": "c31e", "image_path": "train/c31e.jpg", "caption_id": n, "caption_str": text, "set_name": "val",
         "reference_strs": ["A sign.", "A red sign."], "image_classes": ["Sign"], "image_name": "c31e"}
        for n, text in enumerate(["A sign.", "A red sign."])
    ]  # fmt: skip
    path = put(tmp_path, "TextCaps_0.1.json", json.dumps({"dataset_name": "textcaps", "set_name": "val", "data": data}))
    captions = [Caption(0, "A sign."), Caption(1, "A red sign.")]
    assert read(path) == [CaptionedImage("c31e", "valid", captions, "train/c31e.jpg")]


def test_a_list_for_each_split(tmp_path: Path) -> None:
    value = {"train": ROWS, "validation": [{"image": "3.jpg", "text": "x"}], "test": []}
    path = put(tmp_path, "all.json", json.dumps(value))
    assert [(image.file_name, image.split) for image in read(path)] == [
        ("images/2.jpg", "train"),
        ("3.jpg", "valid"),
        ("images/1.jpg", "train"),  # its records stand apart
    ]
    two = {"cats": ROWS, "dogs": ROWS}  # which, or both?
    assert find_format(CaptionFile(put(tmp_path, "all.json", json.dumps(two)))) is None


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        ({"image": ["1.jpg", "2.jpg"], "caption": ["A.", ["B.", "C."]], "labels": ["x"], "info": "y"}, {}),
        ({"image": {"0": "1.jpg", "1": "2.jpg"}, "caption": {"0": "A.", "1": ["B.", "C."]}}, {}),
        ({"images": ["1.jpg", "2.jpg"], "captions": ["A.", ["B.", "C."]]}, {"image": "images"}),
    ],
)
def test_columns(tmp_path: Path, value: Any, columns: dict[str, str]) -> None:
    path = put(tmp_path, "train.json", json.dumps(value))
    found = find_format(CaptionFile(path, columns))
    assert found is not None and found.name == "json-records"
    assert [(image.file_name, len(image.captions)) for image in read(path, columns=columns)] == [
        ("1.jpg", 1),
        ("2.jpg", 2),
    ]


@pytest.mark.parametrize("caption", [["A."], {"0": "A.", "x": "B."}])
def test_columns_of_different_rows(tmp_path: Path, caption: Any) -> None:
    value = {"image": ["1.jpg", "2.jpg"], "caption": caption}
    with pytest.raises(DataError, match=rf"'image' has 2 values and 'caption' {len(caption)}; columns must have"):
        read(put(tmp_path, "train.json", json.dumps(value)))


def test_columns_that_may_all_be_captions(tmp_path: Path) -> None:
    value = {"image": ["1.jpg"], "caption": ["A."], "text": ["B."]}
    path = put(tmp_path, "train.json", json.dumps(value))
    with pytest.raises(DataError, match=r"train\.json: 'text' and 'caption' may all be captions: .*--columns"):
        detect(path)
    assert read(path, columns={"caption": "text"})[0].captions == [Caption(0, "B.")]


def test_captions_of_another_list_of_images(tmp_path: Path) -> None:
    """By their ids alone they would be paired with photos of these numbers."""
    images = [{"id": n, "file_name": f"{9 - n}.jpg"} for n in range(3)]
    value = {"images": images, "captions": [{"image_id": n, "text": "x"} for n in range(3)]}
    assert find_format(CaptionFile(put(tmp_path, "train.json", json.dumps(value)))) is None


@pytest.mark.parametrize(("value", "name"), [(COCO, "coco"), (KARPATHY, "karpathy")])
def test_what_is_of_another_format(tmp_path: Path, value: Any, name: str) -> None:
    assert detect(put(tmp_path, "train.json", json.dumps(value))) == name


def test_lines_of_an_image_may_stand_apart(tmp_path: Path) -> None:
    lines = ['{"image": 1, "caption": "a"}', '{"image": 2, "caption": "b"}', '{"image": "1.jpg", "caption": "c"}']
    images = read(put(tmp_path, "train.jsonl", "\n".join(lines)))
    assert {image.image_id: [caption.text for caption in image.captions] for image in images} == {
        "1": ["a", "c"],
        "2": ["b"],
    }


@pytest.mark.parametrize(
    ("records", "bad", "message"),
    [
        ([ROWS[0], 7], 1, r"a\.json: record 1: 7 is not a JSON object"),
        ([ROWS[0], {"caption": "x"}], 1, r"record 1: no column is named as one of images"),
        ([ROWS[0], {**ROWS[1], "caption": None}], 1, r"record 1: a caption must be text, found None"),
        ([ROWS[0], {**ROWS[1], "text": "x"}], 1, r"record 1: 'text' and 'caption' may all be captions"),
        ([ROWS[0], {**ROWS[1], "file_name": "x.jpg"}], 1, r"'image' is images/2\.jpg and 'file_name' is x\.jpg"),
    ],
)
def test_bad_records(tmp_path: Path, records: list[Any], bad: int, message: str) -> None:
    path = put(tmp_path, "a.json", json.dumps(records))
    with pytest.raises(DataError, match=message):
        read(path, "json-records", unknown_split="all")
    log = ReadingLog(skip_bad=bad)
    (image,) = read(path, "json-records", unknown_split="all", log=log)
    assert image.image_id == "0"
    assert len(log.bad) == bad
    lines = put(tmp_path, "a.jsonl", "\n".join(map(json.dumps, records)) + "\n{cut\n")
    log = ReadingLog(skip_bad=bad + 1)
    assert len(read(lines, "jsonl", unknown_split="all", log=log)) == 1
    assert "line 3 is not JSON" in log.bad[-1]


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"image": 1, "cap', '{"image": 1, "cap', "[" + "9" * 5000 + "]"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_json_that_cannot_be_read(tmp_path: Path, name: str, content: str) -> None:
    """Cut, nested too deep, or with a number of too many digits."""
    with pytest.raises(DataError, match=rf"{name} is not JSON: "):
        detect(put(tmp_path, name, content))


@pytest.mark.parametrize("bad", ['{"image": "2.jpg", "cap', "[" * 5000, '{"image": "2.jpg"}', "{" + '"a":{' * 5000])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_bad_lines(tmp_path: Path, bad: str, place: int) -> None:
    """Most of the first lines tell the format; the others go by --skip-bad."""
    lines = [json.dumps({"image": f"{n}.jpg", "caption": "x"}) for n in range(3)]
    lines.insert(place, bad)
    path = put(tmp_path, "a.jsonl", "\n".join(lines))
    assert detect(path) == "jsonl"
    with pytest.raises(DataError, match=rf"a\.jsonl: line {place + 1}"):
        read(path, unknown_split="")
    assert len(read(path, unknown_split="", log=ReadingLog(1))) == 3


def test_records_of_a_list_that_are_bad(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", json.dumps([{"image": "0.jpg"}, *ROWS, None]))
    assert detect(path) == "json-records"
    assert len(read(path, unknown_split="", log=ReadingLog(2))) == 2
    with pytest.raises(DataError, match=r"record 0: no column is named as one of captions"):
        read(path, unknown_split="")


def test_a_file_without_records(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json is no list of records with an image and captions"):
        read(put(tmp_path, "a.json", '{"data": [1, 2]}'), "json-records")
