"""The list of the files that were no photos or could not be read, kept beside a region store while it is made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from xgpt_fairseq.io.atomic import atomic_write

# A line of the list is a path and a reason.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class UnreadablePhotos:
    """Files that could not be read, with reasons. Add those before an image before the image is written.

    Args:
        journal: where they are kept until the end.
        position: of the files before it, what an interrupted run has found is kept; the others are read again.

    Attributes:
        found: (position, file, reason)
    """

    def __init__(self, journal: Path, position: int) -> None:
        self._journal = journal
        self.found: list[tuple[int, str, str]] = []
        if position and journal.exists():
            lines = journal.read_text(encoding="ascii").split("\n")[:-1]  # what is behind the last line end was cut off
            self.found = [(at, file, reason) for at, file, reason in map(json.loads, lines) if at < position]
        with atomic_write(journal) as aside:
            aside.write_text("".join(map(_line, self.found)), encoding="ascii")

    def __len__(self) -> int:
        return len(self.found)

    def add(self, entries: Iterable[tuple[int, Path, str]]) -> None:
        """Note files with their positions in the order of the work, and the reasons. They are on disk then."""
        new = [(position, str(path), reason) for position, path, reason in entries]
        if not new:
            return
        self.found += new
        with open(self._journal, "a", encoding="ascii") as file:
            file.write("".join(map(_line, new)))
            file.flush()
            os.fsync(file.fileno())

    def write_list(self, path: Path) -> None:
        """Write the list for the user, a line `file, tab, reason` each; without any, take away an old one."""
        if not self.found:
            path.unlink(missing_ok=True)
            return
        with atomic_write(path) as aside:
            lines = [f"{file.translate(_ESCAPES)}\t{reason.translate(_ESCAPES)}\n" for _, file, reason in self.found]
            aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def _line(entry: tuple[int, str, str]) -> str:
    return json.dumps(entry) + "\n"
