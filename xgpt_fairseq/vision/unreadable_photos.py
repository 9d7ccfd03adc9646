"""The list of files that are not photos or could not be read, kept next to a region store while it is made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from xgpt_fairseq.io.atomic import atomic_write

# A line of the list is a path and a reason.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class UnreadablePhotos:
    """Files that could not be read, with reasons. Add the files before an image before writing the image.

    Args:
        journal: file that keeps them until the end.
        position: entries of an interrupted run before this position are kept; later files are read again.

    Attributes:
        found: (position, file, reason)
    """

    def __init__(self, journal: Path, position: int) -> None:
        self._journal = journal
        self.found: list[tuple[int, str, str]] = []
        if position and journal.exists():
            lines = journal.read_text(encoding="ascii").split("\n")[:-1]  # the last line may be incomplete
            self.found = [(at, file, reason) for at, file, reason in map(json.loads, lines) if at < position]
        with atomic_write(journal) as aside:
            aside.write_text("".join(map(_line, self.found)), encoding="ascii")

    def __len__(self) -> int:
        return len(self.found)

    def add(self, entries: Iterable[tuple[int, Path, str]]) -> None:
        """Add files with their positions, in processing order, and the reasons, and flush them to disk."""
        new = [(position, str(path), reason) for position, path, reason in entries]
        if not new:
            return
        self.found += new
        with open(self._journal, "a", encoding="ascii") as file:
            file.write("".join(map(_line, new)))
            file.flush()
            os.fsync(file.fileno())

    def write_list(self, path: Path) -> None:
        """Write the user's list, one line `file, tab, reason` per file; if it is empty, delete an old one."""
        if not self.found:
            path.unlink(missing_ok=True)
            return
        with atomic_write(path) as aside:
            lines = [f"{file.translate(_ESCAPES)}\t{reason.translate(_ESCAPES)}\n" for _, file, reason in self.found]
            aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def _line(entry: tuple[int, str, str]) -> str:
    return json.dumps(entry) + "\n"
