#!/usr/bin/env python
"""Print the arguments that name the captions of a folder of photos, one per line, for xgpt-prepare-captions.

examples:
    python examples/real_photos/find_captions.py path/to/photos
    python examples/real_photos/find_captions.py path/to/photos --captions "captions.csv --hold-out val=0.1"
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from pathlib import Path

from xgpt_fairseq.captions.discovery import SHARES, discover
from xgpt_fairseq.captions.options import add_caption_options
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError

# Options whose value is no file.
OF_WORDS = ("--columns", "--format", "--hold-out", "--answers", "--skip-bad")


def named_below(folder: Path, text: str) -> list[str]:
    """The arguments in *text*, with the paths of those that name files in *folder*.

    Raises:
        DataError: one is an option that not all programs have which read the captions.
    """
    words = shlex.split(text)
    check_options(words)
    return [
        word if before in OF_WORDS or word.split("=")[0] in OF_WORDS else below(folder, word)
        for before, word in itertools.pairwise(["", *words])
    ]


def check_options(words: list[str]) -> None:
    """Refuse options of xgpt-prepare-captions alone: xgpt-learn-bpe, which lacks them, would do so hours later.

    Raises:
        DataError: there is one.
    """
    known = argparse.ArgumentParser(add_help=False)
    add_caption_options(known)
    names = [name for action in known._actions for name in action.option_strings]
    for word in words:
        if word.startswith("--") and (option := word.split("=")[0]) not in names:
            hint = ", and MISSING says how many photos may be missing" if "missing" in option else ""
            raise DataError(f"CAPTIONS: {option} is not for all programs that read them; {', '.join(names)} are{hint}")


def below(folder: Path, word: str) -> str:
    """*word*, or the path of the file that it names in *folder*, as FILE or SPLIT=FILE."""
    split, equals, name = word.rpartition("=")
    return f"{split}{equals}{folder / name}" if name and (folder / name).exists() else word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--captions", default="", metavar="ARGUMENTS", help="them, with files in the folder [found]")
    parser.add_argument(
        "--null", action="store_true", help="end each with a null character: names may have line breaks"
    )
    args = parser.parse_args()
    words = named_below(args.folder, args.captions)
    if not words:
        words = discover(args.folder)
        if "--hold-out" in words[-2:-1] and words[-1] != f"val={SHARES[0]}":
            few = f"note: {args.folder} has few photos: --hold-out val={SHARES[0]}, which goes by a hash of their names"
            print(f"{few}, takes none of them for validation; {words[-1]} does", file=sys.stderr)
    for word in words:
        print(word, end="\0" if args.null else "\n")


if __name__ == "__main__":
    run(main)
