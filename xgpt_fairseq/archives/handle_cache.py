"""Archives that stay open between records, but are never inherited by a forked process.

HDF5 and LMDB keep a state per open file that a forked process must not use; LMDB even refuses to open a file that the
parent has open. So all files are closed before every fork, and reopened when they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar, cast

# A record is in one or two files, and the next one is mostly in the same files.
_LIMIT: Final = 4


class Closable(Protocol):
    def close(self) -> None: ...


Handle = TypeVar("Handle", bound=Closable)

_open: dict[Path, Closable] = {}  # least recently used first


def open_cached(path: Path, open_file: Callable[[Path], Handle]) -> Handle:
    """open_file(path), or its previous result if the file is still open in this process."""
    handle = cast("Handle | None", _open.pop(path, None))
    if handle is None:
        while len(_open) >= _LIMIT:
            _open.pop(next(iter(_open))).close()
        handle = open_file(path)
    _open[path] = handle
    return handle


def close_cached() -> None:
    """Close all cached files of this process."""
    while _open:
        _open.popitem()[1].close()


os.register_at_fork(before=close_cached)
