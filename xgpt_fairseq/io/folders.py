"""Folders, walked to the bottom; what is a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether *path* is a file; a name that is too long, or in a folder that may not be entered, is none."""
    return os.path.isfile(path)  # noqa: PTH113  (`Path.is_file` raises there, up to Python 3.13)


def walk(
    folder: Path, *, on_error: Callable[[OSError], None], leave_out: Callable[[Path], bool] = lambda _: False
) -> Iterator[tuple[Path, list[str]]]:
    """The folders in *folder* and below, itself first, each with the sorted names of its files.

    Names that begin with a dot are passed over. Links are followed, but no folder comes twice.

    Args:
        on_error: is told of a folder that cannot be listed.
        leave_out: of files and folders, which are passed over, too.
    """
    seen: set[tuple[int, int]] = set()  # since links may lead round in a circle
    for parent, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        place = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not leave_out(place / name))
        yield place, sorted(name for name in names if not name.startswith(".") and not leave_out(place / name))
