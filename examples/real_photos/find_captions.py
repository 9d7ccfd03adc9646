#!/usr/bin/env python
"""Print the arguments that name the captions of a folder of photos, one per line, for xgpt-prepare-captions.

example:
    python examples/real_photos/find_captions.py path/to/photos
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xgpt_fairseq.captions.discovery import discover
from xgpt_fairseq.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print("\n".join(discover(parser.parse_args().folder)))


if __name__ == "__main__":
    run(main)
