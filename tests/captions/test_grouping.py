"""Captions of one image, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.captions.base import Caption, CaptionedImage
from xgpt_fairseq.captions.grouping import grouped
from xgpt_fairseq.errors import DataError


def records(rows: list[tuple[str, str]]) -> Iterator[tuple[str, CaptionedImage]]:
    for line, (image, text) in enumerate(rows, start=1):
        yield f"line {line}", CaptionedImage(image, "", [Caption(line, text)], f"{image}.jpg")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.text(max_size=3)), max_size=12))
def test_every_image_comes_once_with_its_captions_in_order(rows: list[tuple[str, str]]) -> None:
    expected: dict[str, list[str]] = {}
    for image, text in rows:
        expected.setdefault(image, []).append(text)
    images = list(grouped(lambda: records(rows)))
    assert len(images) == len(expected)
    for image in images:
        assert [caption.text for caption in image.captions] == expected[image.image_id]
        assert [caption.caption_id for caption in image.captions] == list(range(len(image.captions)))
        assert image.file_name == f"{image.image_id}.jpg"


def test_what_follows_each_other_is_not_held() -> None:
    """An image is there as soon as the next begins."""
    read = 0

    def counted() -> Iterator[tuple[str, CaptionedImage]]:
        nonlocal read
        for each in records([("a", "1"), ("a", "2"), ("b", "3"), ("c", "4")]):
            read += 1
            yield each

    images = grouped(counted)
    assert next(images).image_id == "a"
    assert read == 4 + 3  # once to see what stands apart; then as far as b


def test_records_of_an_image_agree_on_its_split() -> None:
    rows = [
        ("line 1", CaptionedImage("a", "train", [Caption(0, "x")])),
        ("line 2", CaptionedImage("b", "train", [Caption(0, "x")])),
        ("line 3", CaptionedImage("a", "test", [Caption(0, "x")])),
    ]
    with pytest.raises(DataError, match="line 3: image a is of split 'test', before of 'train'; these must agree"):
        list(grouped(lambda: iter(rows)))


def test_records_of_an_image_agree_on_its_file() -> None:
    def files(*names: str) -> list[CaptionedImage]:
        return list(grouped(lambda: iter([("line", CaptionedImage("a", "", [], name)) for name in names])))

    assert [image.file_name for image in files("a.jpg", "a", "a.JPG")] == ["a.jpg"]
    with pytest.raises(DataError, match=r"image a is a\.png, before a\.jpg; an image has one file"):
        files("a.jpg", "a.png")
