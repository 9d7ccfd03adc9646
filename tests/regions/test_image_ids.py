"""One id for one image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.regions.image_ids import (
    NameIndex,
    canonical_image_id,
    is_number,
    is_photo_name,
    json_image_id,
    name_parts,
    shortest_ids,
)


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
        ("https://x.org/a%20b.jpg?size=big#x", "https:/x.org/a b"),
        ("https://x.org/photo?id=7", "https:/x.org/photo?id=7"),  # not the photo "photo"
        ("a#1.jpg", "a#1"),
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


def test_a_number_of_any_length_is_an_id() -> None:
    """Python's int() refuses more than 4300 digits."""
    digits = "7" * 5000
    assert canonical_image_id(f"000{digits}.jpg") == json_image_id(digits) == digits


def test_photos_by_their_names() -> None:
    photos = ["a.jpg", "a.JPEG", "a.b.png", "a.gif", "a.bmp", "a.webp", "COCO_val2014_000000000042.jpg"]
    others = ["a", "jpg", ".jpg", "a.jpg.txt", "a.npz", "a.npy", "a.json"]
    assert [name for name in photos + others if is_photo_name(name)] == photos


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photos/a/001.jpg", ("photos", "a", "1")),
        (r"C:\photos\a\001.JPG", ("C:", "photos", "a", "1")),
        ("./a//b.tiff", ("a", "b")),
        ("a/ b.jpg", ("a", "b")),
        (" b.jpg", ("b",)),
        ("train2014/COCO_train2014_000000000042.jpg", ("train2014", "42")),
        ("cafe\u0301/e\u0301.avif", ("café", "é")),  # letter and accent apart, as on a Mac's disk
        (7, ("7",)),
        ("", ("",)),
    ],
)
def test_the_parts_of_a_path(name: str | int, expected: tuple[str, ...]) -> None:
    assert name_parts(name) == expected
    assert canonical_image_id(name) == "/".join(expected)


def found(names: list[str], name: str) -> list[str]:
    return sorted(NameIndex((each, each) for each in names).find(name))


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        (["1", "2"], "images/1.jpg", ["1"]),
        (["1", "2"], "3.jpg", []),
        (["a/1", "b/1"], "a/1.jpg", ["a/1"]),
        (["a/1", "b/1"], "photos/b/1.jpg", ["b/1"]),
        (["x/a/1", "x/b/1"], "b/1.jpg", ["x/b/1"]),
        (["a/1", "b/1"], "1.jpg", ["a/1", "b/1"]),
        (["a/1", "b/1"], "c/1.jpg", []),
        (["1", "a/1"], "1.jpg", ["1"]),  # the whole name, not the end of another
        (["1", "a/1"], "a/1.jpg", ["a/1"]),
        (["1", "a/1"], "c/1.jpg", ["1"]),
        (["a/1"], "1", ["a/1"]),
        (["é"], "photos/e\u0301.png", ["é"]),
    ],
)
def test_names_are_compared_from_their_end(names: list[str], name: str, expected: list[str]) -> None:
    assert found(names, name) == expected


def test_ids_are_not_made_twice() -> None:
    """`1.png.jpg` is the image `1.png`, and `1.png` the image 1."""
    index = NameIndex((canonical_image_id(name), name) for name in ("1.png.jpg", "1.png", "a/p .jpg", "p.npy.jpg"))
    for name in ("1.png.jpg", "1.png", "a/p .jpg", "p.npy.jpg"):
        assert index.find(name) == index.find_id(canonical_image_id(name)) == [name]
    assert index.find("p.npy") == []


PATHS = st.lists(
    st.lists(st.sampled_from("ab12"), min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True
)


@given(PATHS)
def test_every_path_is_found_by_its_id_and_its_whole_name(paths: list[str]) -> None:
    ids = list(shortest_ids(f"{path}.jpg" for path in paths))
    assert len(set(ids)) == len(paths)
    index = NameIndex(zip(ids, paths, strict=True))
    for path, image_id in zip(paths, ids, strict=True):
        assert index.find_id(image_id) == index.find(f"{path}.jpg") == index.find(f"elsewhere/{path}.png") == [path]


def test_only_shared_names_have_their_folders() -> None:
    paths = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "c/d/3.png"]
    assert list(shortest_ids(paths)) == ["a/1", "b/1", "2", "3"]
