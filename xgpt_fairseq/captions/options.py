"""How the programs that read captions are told of files, splits and image ids."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from xgpt_fairseq.captions.base import CaptionOptions, fairseq_split
from xgpt_fairseq.captions.conceptual_captions import UrlMap, image_id_by_crc32
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id

_SPLIT_AND_FILE = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)


def add_split_files(parser: argparse.ArgumentParser) -> None:
    """Add the option --split-files."""
    parser.add_argument(
        "--split-files",
        nargs="+",
        action="extend",
        default=[],
        metavar="SPLIT=LIST",
        help="the images of each split, an image name or id per line, where captions come without splits: "
        "train=train.txt val=val.txt test=test.txt",
    )


def parse_files(words: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
    """FILE or SPLIT=FILE each → the files, and the splits of those that were named by one (in fairseq's names).

    A file whose whole name is there is that file, whatever equals signs it has.

    Raises:
        DataError: a file named with two splits.
    """
    paths: list[Path] = []
    splits: dict[Path, str] = {}
    for word in words:
        match = _SPLIT_AND_FILE.fullmatch(word)
        path = Path(match[2] if match and not Path(word).exists() else word)
        if match and not Path(word).exists():
            split = fairseq_split(match[1])
            if splits.setdefault(path, split) != split:
                raise DataError(f"{path} is named as {splits[path]!r} and as {split!r}; a file may be named once")
        paths.append(path)
    return paths, splits


def read_split_files(words: Sequence[str]) -> dict[str, str] | None:
    """Lists of --split-files, SPLIT=LIST each → image id → split (in fairseq's names); None without lists.

    Raises:
        DataError: a word that is no SPLIT=LIST, a list that is unreadable or empty, an image in two splits.
    """
    if not words:
        return None
    split_of: dict[str, str] = {}
    for word in words:
        match = _SPLIT_AND_FILE.fullmatch(word)
        if match is None:
            raise DataError(f"--split-files {word} is not SPLIT=LIST, such as train=train.txt")
        split, path = fairseq_split(match[1]), Path(match[2])
        ids = 0
        for number, line in numbered_lines(path):
            if not (image_id := canonical_image_id(line)):
                continue
            ids += 1
            if split_of.setdefault(image_id, split) != split:
                raise DataError(
                    f"{path}: line {number}: image {image_id} is of split {split_of[image_id]!r} by another list, and "
                    f"of {split!r} by this one"
                )
        if not ids:
            raise DataError(f"{path} names no image; --split-files are lists of image names or ids, one a line")
    return split_of


def image_id_resolver(words: Sequence[str]) -> Callable[[str], str | None] | None:
    """--image-ids `line`, `crc32` or map files → how the image of a URL is named; None for `line`."""
    if list(words) == ["line"]:
        return None
    return image_id_by_crc32 if list(words) == ["crc32"] else UrlMap([Path(word) for word in words])


def caption_options(named_splits: dict[Path, str], split_files: Sequence[str]) -> CaptionOptions:
    """The options of programs that take the text of captions alone."""
    return CaptionOptions(named_splits=named_splits, split_lists=read_split_files(split_files))
