"""The list of what is left out of a region store, with reasons, kept beside it while it is made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from xgpt_fairseq.io.atomic import atomic_write
from xgpt_fairseq.io.text_lines import as_field


class LeftOut:
    """Files or records that are left out, with reasons. Add those before an image before the image is written.

    Args:
        journal: where they are kept until the end.
        position: what an interrupted run has found before it is kept; the rest is read again.

    Attributes:
        found: (position, what was left out, reason)
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

    def add(self, entries: Iterable[tuple[int, Path | str, str]]) -> None:
        """Note files or records with their positions in the order of the work, and reasons. They are on disk then."""
        new = [(position, str(what), reason) for position, what, reason in entries]
        if not new:
            return
        self.found += new
        with open(self._journal, "a", encoding="ascii") as file:
            file.write("".join(map(_line, new)))
            file.flush()
            os.fsync(file.fileno())

    def write_list(self, path: Path) -> None:
        """Write the list for the user, a line `what, tab, reason` each; without any, take away an old one."""
        if not self.found:
            path.unlink(missing_ok=True)
            return
        with atomic_write(path) as aside:
            lines = [f"{as_field(file)}\t{as_field(reason)}\n" for _, file, reason in self.found]
            aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def _line(entry: tuple[int, str, str]) -> str:
    return json.dumps(entry) + "\n"
