"""How the programs that read text are told of it: files of plain text, and caption files with their splits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.options import add_split_files, caption_options, parse_files
from xgpt_fairseq.text.readers import check_inputs, report_caption_inputs


def add_text_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the options --input and --split-files."""
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="[SPLIT=]FILE", help="text or caption files"
    )
    add_split_files(parser)


def text_inputs(words: Sequence[str], split_files: Sequence[str]) -> tuple[list[Path], CaptionOptions]:
    """The files of --input, checked and reported, and how those of captions are read.

    Raises:
        DataError: a file that is not there, or named with two splits; or an unusable list of --split-files.
    """
    inputs, splits = parse_files(words)
    check_inputs(inputs)
    report_caption_inputs(inputs)
    return inputs, caption_options(splits, split_files)
