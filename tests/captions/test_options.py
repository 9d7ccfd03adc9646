"""Options of the programs that read captions."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from tests.captions.test_arrow import parquet, save_to_disk
from tests.captions.test_formats import SAMPLES, put
from tests.tars import write_tar
from xgpt_fairseq.captions.base import COLUMNS, CaptionedImage, CaptionOptions
from xgpt_fairseq.captions.options import (
    add_caption_options,
    check_options_count,
    parse_columns,
    read_caption_options,
    read_split_files,
)
from xgpt_fairseq.captions.registry import FORMATS, open_source, read_captions, read_sources
from xgpt_fairseq.errors import DataError


def test_maps_of_image_ids_can_be_given_one_by_one() -> None:
    parser = argparse.ArgumentParser()
    add_caption_options(parser)
    assert parser.parse_args(["--image-ids", "a.json", "--image-ids", "b.json"]).image_ids == ["a.json", "b.json"]
    assert parser.parse_args([]).image_ids is None


def put_in_format(name: str, folder: Path) -> Path:
    """A source of the format *name*."""
    rows = [{"file_name": "1.jpg", "text": "A dog.", "split": "train"}]
    if name in SAMPLES:
        return put(folder, *SAMPLES[name])
    if name == "parquet":
        return parquet(folder / "train.parquet", rows)
    if name == "hf-datasets":
        return save_to_disk(folder / "saved", rows)
    if name == "tar":
        return write_tar(folder / "train.tar", {"1.jpg": "", "1.json": '{"caption": "A dog."}'})
    for file, text in (("1.jpg", ""), ("1.json", '{"caption": "A dog."}')):
        put(folder, file, text)
    return folder


def read_by(path: Path, name: str, *options: str) -> list[CaptionedImage]:
    """The images of *path*, read by these options, as programs do."""
    parser = argparse.ArgumentParser()
    add_caption_options(parser)
    args = parser.parse_args(["--format", name, *options])
    read = replace(read_caption_options(args, {}), unknown_split="")
    source = open_source(path, name, read.columns)
    check_options_count(args, [(path, source.format)], "SOURCE")
    return list(read_sources([source], read))


@pytest.mark.parametrize("name", FORMATS)
def test_options_that_would_do_nothing(tmp_path: Path, name: str) -> None:
    path = put_in_format(name, tmp_path)
    assert read_by(path, name)
    refused = "nosuch|is no list of records with an image and captions"
    for column in COLUMNS:
        with pytest.raises(DataError, match=refused):
            read_by(path, name, "--columns", f"{column}=nosuch")
    if name == "conversations":
        assert read_by(path, name, "--answers", "first")
    else:
        with pytest.raises(DataError, match="--answers is for conversations, and no SOURCE has any"):
            read_by(path, name, "--answers", "first")


def test_a_column_counts_for_one_file_at_least(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_caption_options(parser)
    args = parser.parse_args(["--columns", "split=fold"])
    mine, karpathy = (tmp_path / "mine.csv", FORMATS["table"]), (tmp_path / "dataset.json", FORMATS["karpathy"])
    check_options_count(args, [karpathy, mine], "SOURCE")
    with pytest.raises(DataError, match=r"split=fold would do nothing for .*dataset\.json, which is karpathy"):
        check_options_count(args, [karpathy], "SOURCE")


def test_columns_of_another_source(tmp_path: Path) -> None:
    """Names whose captions are texts or objects, photos with texts, and COCO's images have their own beside a table."""
    columns = {"image": "photo", "caption": "words", "split": "fold"}
    put(tmp_path, "mine.csv", "photo,words,fold\n1.jpg,A dog.,test\n")
    put(tmp_path, "texts.json", '{"2.jpg": "A cat."}')
    put(tmp_path, "objects.json", '{"3.jpg": {"words": "A cow.", "fold": "val"}}')
    (tmp_path / "photos").mkdir()
    for file, text in (("4.jpg", ""), ("4.txt", "A bird.")):
        put(tmp_path / "photos", file, text)
    names = {"mine.csv": "auto", "texts.json": "auto", "objects.json": "json-names", "photos": "auto"}
    read = CaptionOptions(columns=columns, columns_of_others=True, unknown_split="train")
    found = list(
        read_sources([open_source(tmp_path / name, of_name, columns) for name, of_name in names.items()], read)
    )
    assert [(image.split, image.captions[0].text) for image in found] == [
        ("test", "A dog."), ("train", "A cat."), ("valid", "A cow."), ("train", "A bird."),
    ]  # fmt: skip
    tars = tmp_path / "tars"
    tars.mkdir()
    write_tar(tars / "a.tar", {"1.jpg": "", "1.txt": "A dog."})
    write_tar(tars / "b.tar", {"1.jpg": "", "1.json": '{"words": "A cat."}'})
    found = list(read_captions(tars, options=CaptionOptions(columns={"caption": "words"}, unknown_split="train")))
    assert [image.captions[0].text for image in found] == ["A dog.", "A cat."]


def test_a_key_of_json_where_captions_are_texts(tmp_path: Path) -> None:
    for file, text in (("1.jpg", ""), ("1.txt", "A dog.")):
        put(tmp_path, file, text)
    tar = write_tar(tmp_path / "train.tar", {"1.jpg": "", "1.txt": "A dog."})
    for name, path in (("folder", tmp_path), ("tar", tar)):
        assert read_by(path, name)
        with pytest.raises(DataError, match=r"--columns caption=… chooses a key of photos' \.json"):
            read_by(path, name, "--columns", "caption=words")


def test_names_whose_captions_are_texts_have_no_columns(tmp_path: Path) -> None:
    path = put(tmp_path, "train.json", '{"1.jpg": "A dog."}')
    assert read_by(path, "json-names")
    with pytest.raises(DataError, match="has captions alone under its names, no columns"):
        read_by(path, "json-names", "--columns", "split=fold")


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
