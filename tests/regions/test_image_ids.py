"""One id for one image."""

from __future__ import annotations

import pytest

from xgpt_fairseq.regions.image_ids import canonical_image_id, is_number, is_photo_name, json_image_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (42, "42"),
        ("42", "42"),
        ("000000000042", "42"),
        ("000000000042.jpg", "42"),
        ("COCO_val2014_000000000042", "42"),
        ("COCO_train2014_000000000042.jpg", "42"),
        ("COCO_test2015_000000000042.JPG", "42"),
        ("42.npz", "42"),
        (" 42\n", "42"),
        ("0", "0"),
        ("1000092795.jpg", "1000092795"),
        ("nocaps/0013ea2087020901.jpg", "nocaps/0013ea2087020901"),
        ("cc_000000000042_7", "cc_000000000042_7"),
        ("COCO_val2014_x", "COCO_val2014_x"),
        ("photo.v2.jpeg", "photo.v2"),
        ("٤٢", "٤٢"),  # digits, but not ASCII ones: int() would take them
    ],
)
def test_names_of_one_image_give_one_id(name: str | int, expected: str) -> None:
    assert canonical_image_id(name) == expected


def test_the_id_of_an_id_is_the_id() -> None:
    for name in ("COCO_val2014_000000000042.jpg", "0042", "a.png", "b"):
        once = canonical_image_id(name)
        assert canonical_image_id(once) == once


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [("42", 42), ("0", 0), ("1000092795", 1000092795), ("cc_7", "cc_7"), ("4.2", "4.2"), ("-4", "-4"), ("٤٢", "٤٢")],
)
def test_ids_in_json_are_numbers_where_they_are_numeric(image_id: str, expected: int | str) -> None:
    assert json_image_id(image_id) == expected
    assert is_number(image_id) == isinstance(expected, int)


def test_photos_by_their_names() -> None:
    photos = ["a.jpg", "a.JPEG", "a.b.png", "a.gif", "a.bmp", "a.webp", "COCO_val2014_000000000042.jpg"]
    others = ["a", "jpg", ".jpg", "a.jpg.txt", "a.npz", "a.npy", "a.json"]
    assert [name for name in photos + others if is_photo_name(name)] == photos
