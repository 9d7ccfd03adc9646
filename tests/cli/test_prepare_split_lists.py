"""Splits on the command line: lists of images, and files that are named as a split."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli import test_prepare_formats as formats
from tests.cli.test_prepare_formats import Image, as_coco, as_jsonl, as_token, check_pairs, split_lists
from tests.folders import contents
from xgpt_fairseq.captions import options as caption_options
from xgpt_fairseq.captions import survey
from xgpt_fairseq.captions.options import parse_files, read_split_files
from xgpt_fairseq.errors import DataError

prepare, tiny_images = formats.prepare, formats.tiny_images  # fixtures


def test_images_in_no_list(prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path) -> None:
    words = as_token(tmp_path, tiny_images)
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf500\r\n\r\n000000000042.jpg\r\n500\r\n77777\r\n")
    done = prepare(*words)
    assert done.status == 0, done.stderr
    assert "6 images are in none of the lists of --split-files, and are not used\n" in done.stdout
    assert "1 images of the lists of --split-files are in no SOURCE, the first: 77777\n" in done.stdout
    assert (tmp_path / "data" / "uncaptioned-images.txt").read_text() == "31\n"
    check_pairs(tmp_path / "data", [i for i in tiny_images if i[1] != "train" or int(Path(i[0]).stem) in (500, 42)])


def test_karpathys_splits_of_cocos_files(
    prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path, tiny_data: Path
) -> None:
    """Lists count more than names of files: COCO's val is for the most part training data in Karpathy's splits."""
    of_cocos = [(name, "train" if split == "test" else split, texts) for name, split, texts in tiny_images]
    files = as_coco(tmp_path, of_cocos)
    done = prepare(*files[:2], *split_lists(tmp_path, tiny_images))
    assert done.status == 0, done.stderr
    check_pairs(tmp_path / "data", tiny_images)
    assert contents(tmp_path / "data")["test.pairs.npy"] == contents(tiny_data)["test.pairs.npy"]


def test_files_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there=is.json").write_text("")
    words = ["a.json", "val=b.json", "my-split_2=c=d.json", "there=is.json", "./x=y.json", "-"]
    paths = [Path(name) for name in ("a.json", "b.json", "c=d.json", "there=is.json", "x=y.json", "-")]
    assert parse_files(words) == (paths, {paths[1]: "valid", paths[2]: "my-split_2"})
    with pytest.raises(DataError, match=r"a\.json is named as 'train' and as 'valid'; a file may be named once"):
        parse_files(["train=a.json", "val=a.json"])
    assert read_split_files([]) is None
    assert caption_options.image_id_resolver(["line"]) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split-files", "a.txt"], "--split-files a.txt is not SPLIT=LIST, such as train=train.txt"),
        (["--split-files", "train=none.txt"], "none.txt does not exist"),
        (["--split-files", "train=empty.txt"], "empty.txt names no image"),
        (["--split-files", "train=a.txt", "val=b.txt"], "b.txt: line 2: image 42 is of split 'train' by another list"),
        (
            ["--split-files", "train=far.txt"],
            "no image of the lists of --split-files is in the source: .* The first: 4711",
        ),
        (["--image-ids", "crc32"], "--image-ids is for cc-tsv files, and no SOURCE is one"),
        (["--max-missing", "0.1"], "--max-missing needs --missing-images skip"),
        (["--max-missing", "-0.1", "--missing-images", "skip"], "--max-missing is a share, 0 to 1, got -0.1"),
        (["--max-missing", "5", "--missing-images", "skip"], "--max-missing is a share, 0 to 1, got 5"),
        (["--max-missing", "nan", "--missing-images", "skip"], "--max-missing is a share, 0 to 1, got nan"),
        (["--format", "jsonl"], "results_20130124.token: line 1 is not JSON"),
        ([], "results_20130124.token: of which split is image 500\\?"),
    ],
)
def test_errors_leave_nothing_behind(
    prepare: Callable[..., Any],
    tiny_images: list[Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    lists = {"a.txt": "42\n", "b.txt": "7\n42.jpg\n", "far.txt": "4711\n", "empty.txt": " \n"}
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    source = as_token(tmp_path, tiny_images)[0]
    before = sorted(tmp_path.iterdir())
    done = prepare(source, *words)
    assert done.status == 1
    assert re.search(message, done.error), done.error
    assert sorted(tmp_path.iterdir()) == before


def test_a_source_that_changes_meanwhile(
    prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = as_jsonl(tmp_path, tiny_images)
    check = survey.check

    def check_and_change(*arguments: Any) -> None:
        check(*arguments)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    monkeypatch.setattr(survey, "check", check_and_change)
    done = prepare(path)
    assert done.status == 1
    assert done.error == "the source was changed while it was read; run the program again"
    assert not (tmp_path / "data").exists()


def test_missing_images_of_a_split_that_is_not_written(
    prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path
) -> None:
    [path] = as_jsonl(tmp_path, tiny_images)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"image": "lost.jpg", "caption": "x", "split": "extra"}\n')
    done = prepare(path)
    assert done.status == 0, done.stderr
    assert "split 'extra': 1 images are not used (--splits)" in done.stdout
    assert not list(tmp_path.rglob("extra*"))
