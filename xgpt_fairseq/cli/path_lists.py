"""Photos that are named in a file, a path a line, where there are too many for a command line."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import BYTE_ORDER_MARK


def add_list_option(parser: argparse.ArgumentParser, when: str = "") -> None:
    """The option --list of a program that takes `photos`; *when* it counts, for `--help`."""
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help=f"{when}a file that names more of them, a path a line, as `find` prints them",
    )


def with_listed_paths(
    parser: argparse.ArgumentParser, args: argparse.Namespace, required: str = "PHOTOS, or --list"
) -> argparse.Namespace:
    """*args* with the paths of --list behind those of the command.

    `args.given` is what the user gave, as text: paths, and the list with its checksum; of relative ones, from where.

    Raises:
        DataError: the file can't be read, or names nothing.
        SystemExit: there are neither.
    """
    args.given = as_given(args.photos)
    if args.list is None:
        if not args.photos:
            parser.error(f"the following arguments are required: {required}")
        return args
    try:
        content = args.list.read_bytes()
    except OSError as error:
        raise DataError(f"--list {args.list}: {error.strerror}") from None
    if b"\0" in content:
        raise DataError(f"--list {args.list} is no list of paths, a path a line: it holds bytes that no text has")
    lines = content.removeprefix(BYTE_ORDER_MARK).splitlines()  # Notepad and PowerShell write one
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise DataError(f"--list {args.list} names no files")
    args.photos = [*args.photos, *paths]
    given = f"--list {args.list.absolute()} ({hashlib.sha256(content).hexdigest()[:16]})"
    args.given.append(given if all(path.is_absolute() for path in paths) else f"{given} (from {Path.cwd()})")
    return args


def as_given(paths: Sequence[Path]) -> list[str]:
    """Paths as text that says which files they are: of relative ones, from where."""
    return [str(path) if path.is_absolute() else f"{path} (from {Path.cwd()})" for path in paths]
