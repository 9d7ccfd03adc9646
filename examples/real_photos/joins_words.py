#!/usr/bin/env python
"""Say whether the captions of a data directory have no spaces between words, as Chinese, Japanese and Thai: yes or no.

Such captions are scored by characters, and not optimised for CIDEr, which compares words.

example:
    python examples/real_photos/joins_words.py real_photos/photos/captions --split train
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from xgpt_fairseq.captions.references import read_references
from xgpt_fairseq.cli import run
from xgpt_fairseq.text.scripts import count_spacing

LOOKED_AT = 1000  # captions, as many as the task xgpt_caption looks at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data directory")
    parser.add_argument("--split", required=True)
    args = parser.parse_args()
    references = read_references(args.data / f"{args.split}.references.json")
    captions = itertools.chain.from_iterable(references.captions.values())
    print("yes" if count_spacing(itertools.islice(captions, LOOKED_AT)).joins_words else "no")


if __name__ == "__main__":
    run(main)
