"""Options of the programs that read captions."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from xgpt_fairseq.captions.base import CaptionedImage
from xgpt_fairseq.captions.options import add_caption_options, parse_columns, read_split_files
from xgpt_fairseq.errors import DataError


def test_maps_of_image_ids_can_be_given_one_by_one() -> None:
    parser = argparse.ArgumentParser()
    add_caption_options(parser)
    assert parser.parse_args(["--image-ids", "a.json", "--image-ids", "b.json"]).image_ids == ["a.json", "b.json"]
    assert parser.parse_args([]).image_ids is None


def test_columns() -> None:
    assert parse_columns("") == {}
    assert parse_columns(" image = my photo,split=part") == {"image": "my photo", "split": "part"}
    assert parse_columns("caption=en,image=photo, caption=de") == {"image": "photo", "caption": "en,de"}


@pytest.mark.parametrize("text", ["image=a,image=b", "split=a,split=b", "photo=a", "image", "caption=", "caption=a,=b"])
def test_columns_that_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="each once, but for several columns of captions") as caught:
        parse_columns(text)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "1.jpg\n[2].jpg\n"),
        ("a.txt", "\ufeffFile Name\r\n1.jpg\r\n[2].jpg\r\n"),
        ("a.csv", "[2].jpg\n1.jpg\n"),
        ("a.json", '["1.jpg", "[2].jpg"]'),
        ("a.txt", '[\n "1.jpg",\n "[2].jpg"\n]'),
    ],
)
def test_split_lists(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    lists = read_split_files([f"val={tmp_path / name}"])
    assert lists is not None
    assert len(lists) == 2
    for image in ("1.jpg", "[2].jpg"):
        assert lists.split_of(CaptionedImage("x", "", [], image)) == "valid"


def test_split_lists_in_json_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('{"train": ["1.jpg"]}')
    with pytest.raises(DataError, match=r"a\.txt is JSON, and no list of image names or ids, as --split-files must be"):
        read_split_files([f"train={tmp_path / 'a.txt'}"])
