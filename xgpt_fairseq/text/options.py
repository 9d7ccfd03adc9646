"""Command-line options of the programs that read text: files of plain text, and caption files with their splits."""

from __future__ import annotations

import argparse
from pathlib import Path

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.options import add_caption_options, parse_files, read_caption_options
from xgpt_fairseq.text.readers import check_inputs, report_caption_inputs


def add_text_inputs(parser: argparse.ArgumentParser) -> None:
    """Add --input, and the options of captions."""
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="[SPLIT=]FILE", help="text or caption files"
    )
    add_caption_options(parser)


def text_inputs(args: argparse.Namespace) -> tuple[list[Path], CaptionOptions]:
    """The files of --input, checked and reported, and how those of captions are read.

    Raises:
        DataError: a file that is not there, or named with two splits; or an unusable option of `add_caption_options`.
    """
    inputs, splits = parse_files(args.input)
    options = read_caption_options(args, splits)
    check_inputs(inputs, options)
    report_caption_inputs(inputs, options)
    return inputs, options
