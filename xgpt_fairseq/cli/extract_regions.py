"""Make a region store from photos, with features of grid cells, of a detector, or of any detector's boxes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.extract_options import parse_arguments


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: extract_regions(parse_arguments(arguments)))


def extract_regions(args: argparse.Namespace) -> None:
    """Write the region store, and print a summary."""
    from xgpt_fairseq.cli.photo_extraction import extract

    extract(args)


if __name__ == "__main__":
    main()
