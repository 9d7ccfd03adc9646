"""Caption files that are broken: one line that names the file, the record, the value and the rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import COCO, SAMPLES, detect, put, read
from xgpt_fairseq.captions.base import CaptionFile
from xgpt_fairseq.captions.registry import find_format
from xgpt_fairseq.errors import DataError


def coco(**changes: Any) -> str:
    return json.dumps({**COCO, **changes})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco", "[]", r"has no lists 'images' and 'annotations'"),
        ("coco", '{"images": []}', r"has no lists 'images' and 'annotations'"),
        ("coco", coco(images=[{"id": 1}, {"id": 1}]), r"image 1 is listed twice"),
        ("coco", coco(images=[{"file_name": "a.jpg"}]), r"images\[0\] lacks 'id'"),
        ("coco", coco(images=[7]), r"images\[0\] lacks 'id'"),
        ("coco", coco(images=[{"id": True}]), r"images\[0\]: 'id' must be an image's id or file name, found True"),
        ("coco", coco(annotations=[{"caption": "a"}]), r"annotations\[0\] lacks 'image_id'"),
        ("coco", coco(annotations=[{"image_id": 8, "caption": "a"}]), r"annotations\[0\]: image 8 is not among"),
        ("coco", coco(annotations=[{"image_id": 57870, "bbox": []}]), r"annotations\[0\] lacks 'caption'"),
        ("coco", coco(annotations=[{"image_id": 57870, "caption": 5}]), r"a caption must be text, found 5"),
        ("flickr30k-token", "1.jpg#0\ta\n1.jpg 1\tb\n", r"line 2: '1\.jpg 1\\tb' is not IMAGE#NUMBER, a tab and"),
        ("flickr30k-token", "x#0 a\n", r"line 1: 'x#0 a' is not IMAGE#NUMBER"),
        ("flickr30k-token", "1.jpg#x\ta\n", r"line 1: .* is not IMAGE#NUMBER"),
        ("flickr30k-token", "1.jpg#0\ta\n\n1.jpg#0\tb\n", r"line 3: caption 0 of image 1 is listed twice"),
        ("cc-tsv", "a\thttp://1\nb\n", r"line 2 has 1 columns: 'b'; it must have two, a caption and a URL"),
        ("cc-tsv", "a\thttp://1\nb\tc\thttp://2\n", r"line 2 has 3 columns"),
        ("cc-tsv", "a\thttp://1\nb\tc\n", r"line 2: 'c' is not a URL, and the second column must be one"),
        ("cc-tsv", "http://1\ta\nb\thttp://2\n", r"line 2: 'b' is not a URL, and the first column must be one"),
        ("jsonl", '{"image": 1, "caption": "a"}\n{"image": 2,\n', r"line 2 is not JSON"),
        ("jsonl", "[1]\n", r"line 1: \[1\] is not a JSON object"),
        ("jsonl", '\n{"caption": "a"}\n', r"line 2: no column is named as one of images \(.*are: caption; "),
        ("jsonl", '{"image": null, "caption": "a"}\n', r"line 1: 'image' must be .*, found None"),
        ("jsonl", '{"image": "", "caption": "a"}\n', r"line 1: 'image' must be .*, found ''"),
        ("jsonl", '{"image": "a\\nb", "caption": "a"}\n', r"line 1: 'image' must be .*, found 'a\\nb'"),
        ("jsonl", '{"image": 1}\n', r"line 1: no column is named as one of captions"),
        ("jsonl", '{"image": 1, "caption": "a", "captions": []}\n', r"line 1: 'caption' and 'captions' may all be"),
        ("jsonl", '{"image": 1, "captions": {"a": 1}}\n', r"line 1: a caption must be text, found {'a': 1}"),
        ("jsonl", '{"image": 1, "captions": ["a", 3]}\n', r"line 1: a caption must be text, found 3"),
        ("jsonl", '{"image": 1, "caption": "a", "split": 3}\n', r"line 1: 'split' must be a name, found 3"),
        ("jsonl", '{"image": 1, "caption": "a"}\n{"image": "1.jpg", "caption": "b", "split": "val"}\n',
         r"line 2: image 1 is of split 'valid', before of ''; these must agree"),
        ("jsonl", '{"image": 1, "caption": "a \\ud83d"}\n', r"image 1, caption 0 is not Unicode text: 'a"),
        ("jsonl", '{"image": "\\ud83d", "caption": "a"}\n', r"line 1: 'image' must be"),
        ("jsonl", b'{"image": 1, "caption": "\xff"}\n', r"is not UTF-8 text: line 1, invalid start byte"),
        ("flickr30k-token", b"1.jpg#0\ta\n\n1.jpg#1\t\xff\n", r"is not UTF-8 text: line 3"),
    ],
)  # fmt: skip
def test_bad_records(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = put(tmp_path, "train.file", content)
    with pytest.raises(DataError, match=message) as caught:
        read(path, name)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("make", "message"), [(None, "does not exist"), (Path.mkdir, "is not a file|does not exist")])
def test_what_is_no_file(tmp_path: Path, name: str, make: Callable[[Path], None] | None, message: str) -> None:
    path = tmp_path / "train.file"
    if make is not None:
        make(path)
    with pytest.raises(DataError, match=message):
        read(path, name)


def test_a_file_without_line_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xgpt_fairseq.io.text_lines.LONGEST_LINE", 50)
    path = put(tmp_path, "train.tsv", f"a\thttp://1\n{'x' * 100}")
    with pytest.raises(DataError, match=r"train\.tsv: line 2 is longer than"):
        read(path, "cc-tsv")


def test_long_first_lines_are_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xgpt_fairseq.io.text_lines.HEAD_BYTES", 30)
    path = put(tmp_path, "train.tsv", f"a\thttp://1\n{'b' * 40}\n")
    assert detect(path) == "cc-tsv"  # the second line is cut off, and not judged
    monkeypatch.setattr("xgpt_fairseq.io.text_lines.HEAD_BYTES", 1000)
    assert find_format(CaptionFile(path)) is None


def test_an_integer_that_python_does_not_read(tmp_path: Path) -> None:
    path = put(tmp_path, "captions.json", f'[{{"image_id": {"7" * 5000}, "caption": "a"}}]')
    with pytest.raises(DataError, match=r"captions\.json is not JSON: .*5000 digits"):
        read(path)
