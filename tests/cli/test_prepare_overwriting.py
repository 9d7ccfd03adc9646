"""What the programs that prepare data replace, and what they do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_prepare_captions import check_split, source_images
from tests.folders import contents
from xgpt_fairseq.cli import prepare_captions, prepare_text
from xgpt_fairseq.data.directory import DataDirectory


@pytest.mark.parametrize("make", ["folder", "file"])
@pytest.mark.parametrize("kind", ["captions", "text"])
def test_what_is_no_data_directory_is_not_replaced(
    call_program: Callable[..., Any], tiny_captions: Path, tiny_vocabulary: Path, tiny_store: Path, tmp_path: Path,
    kind: str, make: str,
) -> None:  # fmt: skip
    mine = tmp_path / "data" / "thesis.tex" if make == "folder" else tmp_path / "data"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    options = ["--vocabulary", tiny_vocabulary, "--output", tmp_path / "data", "--overwrite"]
    if kind == "captions":
        done = call_program(prepare_captions.main, tiny_captions, "--regions", tiny_store, *options)
    else:
        done = call_program(prepare_text.main, "--input", tiny_captions, "--valid-lines", 4, *options)
    assert done.status == 1
    assert "is not a data directory (it has no dataset.json): it is not replaced" in done.error
    assert mine.read_text() == "mine"


def test_overwrite(prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path) -> None:
    assert prepare().status == 0
    before = contents(tmp_path)
    done = prepare("--splits", "test")
    assert done.status == 1
    assert done.error == f"{tmp_path / 'data'} exists; pass --overwrite to replace it"
    assert contents(tmp_path) == before
    assert prepare("--splits", "test", "--overwrite").status == 0
    names = {"captions.bin", "captions.idx", "pairs.npy", "references.json"}
    expected = {f"test.{name}" for name in names} | {"dataset.json", "dict.txt", "bpe.codes", "vocabulary.json"}
    expected.add("uncaptioned-images.txt")
    assert set(contents(tmp_path / "data")) == expected
    check_split(tmp_path / "data", "test", source_images(tiny_captions, "test"))


def test_a_failure_leaves_the_directory_that_was_there(prepare: Callable[..., Any], tmp_path: Path) -> None:
    assert prepare().status == 0
    before = contents(tmp_path)
    assert prepare("--splits", "train,mine", "--overwrite").status == 1
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_region_store_in_the_directory_stays(prepare: Callable[..., Any], tiny_store: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert prepare().status == 0
    shutil.copytree(tiny_store, data / "regions")
    before = contents(data / "regions")
    assert prepare("--regions", data / "regions", "--splits", "test", "--overwrite").status == 0
    assert contents(data / "regions") == before
    assert DataDirectory(data).regions.path == data / "regions"
    # another store would not be the one that is read
    done = prepare("--overwrite")
    assert done.status == 1
    assert (
        f"{data} holds a region store, {data / 'regions'}, that is not that of the captions, {tiny_store}" in done.error
    )
    assert contents(data / "regions") == before
