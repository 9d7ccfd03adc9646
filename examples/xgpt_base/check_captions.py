#!/usr/bin/env python
"""Print the arguments of xgpt-prepare-captions for captions that a variable names, each ended by a null character.

The captions are read before: what is wrong with them would else be said after hours of import. That is files that are
not there, options that the program lacks, and splits without captions.

example:
    python examples/xgpt_base/check_captions.py CC_CAPTIONS \\
        "train=Train_GCC-training.tsv val=Validation_GCC-1.1.0-Validation.tsv --image-ids crc32" train,val error
"""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from xgpt_fairseq.captions.options import check_options_count, parse_columns, parse_files, read_caption_options
from xgpt_fairseq.captions.registry import open_source, read_sources
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import given_options
from xgpt_fairseq.cli.prepare_captions import check_options, command_line
from xgpt_fairseq.errors import DataError

# What 0_prepare.sh says itself, and what would be another task.
NOT_HERE = ("vocabulary", "regions", "output", "overwrite", "photos", "list")


def exists(name: str) -> bool:
    """Whether *name* is that of a file or folder. Text can be too long for one."""
    try:
        return bool(name) and Path(name).exists()
    except OSError:
        return False


def words_of(variable: str, text: str) -> list[str]:
    """A file, whatever its name, or SPLIT=FILE; else words, as a shell would part them.

    Raises:
        DataError: a quotation mark without its other one.
    """
    if exists(text) or exists(text.partition("=")[2]):
        return [f"./{text}" if text.startswith("-") else text]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise DataError(f"{variable}: {text} cannot be parted into words: {error}") from None


def check(variable: str, arguments: list[str]) -> None:
    """Read the captions that *arguments* of xgpt-prepare-captions name.

    Raises:
        DataError: a file is not there or can't be read, an option has no place here, or a split has no captions.
    """
    parser = command_line()
    parser.prog = "xgpt-prepare-captions"
    args = parser.parse_args(arguments)
    if given := given_options(parser, args, NOT_HERE):
        raise DataError(f"{variable}: {', '.join(given)} can't be given here")
    check_options(args)
    files, named_splits = parse_files(args.source)
    for file in files:
        if not file.exists():
            raise DataError(f"{variable}: {file} is not there")
    sources = [open_source(file, args.format, parse_columns(args.columns)) for file in files]
    check_options_count(args, [(source.file.path, source.format) for source in sources], variable)
    alone = len(sources) == 1
    options = replace(read_caption_options(args, named_splits), is_only_source=alone, columns_of_others=not alone)
    images = tqdm(read_sources(sources, options), desc=f"reading {variable}", unit=" images", disable=None)
    found = Counter(image.split for image in images if image.captions)
    missing = [split for split in map(fairseq_split, args.splits.split(",")) if not found[split]]
    if missing:
        there = ", ".join(f"{split!r} ({count} images)" for split, count in sorted(found.items())) or "none"
        raise DataError(
            f"{variable} has no captions for split {missing[0]!r}; it has {there}: name more files, add --hold-out or "
            "--split-files, or say which splits are wanted, such as --splits train,val"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variable", help="its name, for errors")
    parser.add_argument("text", help="its value: a file, or files and options")
    parser.add_argument("splits", help="that are needed, unless the text has --splits")
    parser.add_argument("missing_images", help="of --missing-images, unless the text has it")
    args = parser.parse_args()
    arguments = ["--splits", args.splits, "--missing-images", args.missing_images]
    arguments += words_of(args.variable, args.text)
    check(args.variable, arguments)
    for word in arguments:
        print(word, end="\0")


if __name__ == "__main__":
    run(main)
