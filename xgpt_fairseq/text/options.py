"""Command-line options of the programs that read text: files of plain text, and caption files with their splits."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.options import add_caption_options, check_options_count, parse_files, read_caption_options
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text.readers import caption_format, check_inputs, is_caption_file, report_caption_inputs


def add_text_inputs(parser: argparse.ArgumentParser) -> None:
    """Add --input, and the options of captions."""
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="[SPLIT=]FILE", help="text or caption files"
    )
    add_caption_options(parser, "the inputs that are captions")


def text_inputs(args: argparse.Namespace) -> tuple[list[Path], CaptionOptions]:
    """The files of --input, checked and reported, and how those of captions are read.

    Raises:
        DataError: a file that is not there, or named with two splits; or an option of `add_caption_options` that is
            unusable, or given without captions.
    """
    inputs, splits = parse_files(args.input)
    options = read_caption_options(args, splits)
    check_inputs(inputs, options)
    captions = [path for path in inputs if is_caption_file(path, options)]
    given = {"--hold-out": args.hold_out, "--split-files": args.split_files, "--columns": args.columns}
    given["--answers"] = args.answers != "one"
    for option, value in given.items():
        if value and not captions:
            raise DataError(f"{option} is for captions, and no --input has captions of a known format")
    # JSON must be parsed for that
    looked_at = [path for path in captions if path.suffix != ".json" or args.columns or given["--answers"]]
    formats = [(path, found) for path in looked_at if (found := caption_format(path, options))]
    check_options_count(args, formats, "--input")
    report_caption_inputs(inputs, options)
    if (args.hold_out or args.split_files) and args.image_ids is None and any(of.images_by_url for _, of in formats):
        print(
            "images are named by the number of their line, and so found in splits; if another --image-ids is given to "
            "xgpt-prepare-captions, give it here, too",
            file=sys.stderr,
        )
    return inputs, options
