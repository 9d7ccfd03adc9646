"""Archives that stay open from record to record, and never go from one process to another.

HDF5 and LMDB keep a state per open file that a forked process must not use; LMDB even refuses to open what the parent
has open. So what is open is closed before every fork, and whoever needs it next opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar, cast

# A record is in one or two files, and the next one mostly in the same.
_LIMIT: Final = 4


class Closable(Protocol):
    def close(self) -> None: ...


Handle = TypeVar("Handle", bound=Closable)

_open: dict[Path, Closable] = {}  # the last one that was used is the last


def open_cached(path: Path, open_file: Callable[[Path], Handle]) -> Handle:
    """open_file(path), or what it returned the last time in this process."""
    handle = cast("Handle | None", _open.pop(path, None))
    if handle is None:
        while len(_open) >= _LIMIT:
            _open.pop(next(iter(_open))).close()
        handle = open_file(path)
    _open[path] = handle
    return handle


def close_cached() -> None:
    """Close all that is kept open in this process."""
    while _open:
        _open.popitem()[1].close()


os.register_at_fork(before=close_cached)
