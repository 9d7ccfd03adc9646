"""Where the split of an image comes from, in one file and in several."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import SAMPLES, put, read
from xgpt_fairseq.captions.base import CaptionOptions, SplitLists
from xgpt_fairseq.captions.hold_out import parse_hold_out
from xgpt_fairseq.captions.registry import UNLISTED, open_source, read_sources
from xgpt_fairseq.captions.split_names import split_in_name
from xgpt_fairseq.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train2014.json", "train"),
        ("captions_val2014.json", "valid"),
        ("captions_val2017.json", "valid"),
        ("Train_GCC-training.tsv", "train"),
        ("Train-GCC-training.tsv.gz", "train"),
        ("Validation_GCC-1.1.0-Validation.tsv", "valid"),
        ("restval.jsonl", "train"),
        ("flickr.test.token", "test"),
        ("dev.csv", "valid"),
        ("devices_train.csv", "train"),
        ("captions_trainval2014.json", ""),
        ("train_and_val.jsonl", ""),
        ("attest.jsonl", ""),
        ("results_20130124.token", ""),
    ],
)
def test_splits_in_file_names(name: str, split: str) -> None:
    assert split_in_name(name) == split


def test_where_splits_come_from(tmp_path: Path) -> None:
    def lists(**splits: str) -> SplitLists:
        return SplitLists((name.removeprefix("n"), split) for name, split in splits.items())

    for name in ("captions_train2014.json", "captions.json"):
        path = put(tmp_path, name, SAMPLES["coco"][1])
        # the name of the file counts least
        assert [image.split for image in read(path, named_splits={path: "mine"})] == ["mine"] * 3
        assert [image.split for image in read(path, split_lists=lists(n57870="valid", n222016="test"))] == [
            "valid",
            UNLISTED,
            "test",
        ]
        assert {image.split for image in read(path, split_lists=lists(n57870="x"), named_splits={path: "x"})} == {"x"}
    with pytest.raises(DataError, match=r"captions\.json: of which split is image 57870\?.*SPLIT=FILE.*--split-files"):
        read(path)
    mixed = put(tmp_path, "train.jsonl", '{"image": 1, "caption": "a"}\n{"image": 2, "caption": "b", "split": "val"}\n')
    assert [image.split for image in read(mixed)] == ["train", "valid"]
    assert [image.split for image in read(mixed, split_lists=lists(n1="test"))] == ["test", "valid"]
    assert [image.split for image in read(mixed, named_splits={mixed: "valid"})] == ["valid", "valid"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split_lists": SplitLists([("42", "train")])},
            r"image 42 is of split 'valid' by its record, 'train' by --split-files",
        ),
        ({"named": "test"}, r"image 42 is of split 'valid' by its record, 'test' by SPLIT=FILE; these must agree"),
    ],
)
def test_splits_that_disagree(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = put(tmp_path, *SAMPLES["karpathy"])
    if named := options.pop("named", None):
        options["named_splits"] = {path: named}
    with pytest.raises(DataError, match=message):
        read(path, **options)


def test_several_files(tmp_path: Path) -> None:
    train = put(tmp_path, "train.jsonl", '{"image": 1, "caption": "a"}\n')
    valid = put(tmp_path, "val.token", "2.jpg#0\tb\n")
    sources = [open_source(train, "jsonl"), open_source(valid, "flickr30k-token")]
    assert [(image.image_id, image.split) for image in read_sources(sources, CaptionOptions())] == [
        ("1", "train"),
        ("2", "valid"),
    ]
    origins = [image.origin for image in read_sources(sources, CaptionOptions())]
    assert [(origin.path, origin.folder, origin.split) for origin in origins if origin] == [
        (train, str(tmp_path.resolve()), "train"),
        (valid, str(tmp_path.resolve()), "valid"),
    ]


@pytest.mark.parametrize("name", ["n/a", "../stray", "a\\b", ".hidden", "train set", "a,b", "a\nb"])
def test_names_that_no_files_can_have(tmp_path: Path, name: str) -> None:
    """Files are named after splits: a blank or a slash in a name would write elsewhere, or could not be chosen."""
    lines = [{"image": "1.jpg", "caption": "a", "split": "train"}, {"image": "2.jpg", "caption": "b", "split": name}]
    path = put(tmp_path, "mine.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=f"mine.jsonl: image 2 is of split {re.escape(repr(name))}: the name of a spl"):
        read(path)
    with pytest.raises(DataError, match=f"--hold-out {re.escape(name)}=0.1 is of split|each once|SPLIT=SHARE"):
        parse_hold_out(f"{name}=0.1")
    for good in ("test-A_1.5", "développement", "_x"):
        put(tmp_path, "mine.jsonl", json.dumps(lines[1] | {"split": good}) + "\n")
        assert [image.split for image in read(path)] == [good]
