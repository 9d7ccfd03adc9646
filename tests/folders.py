"""What lies in a folder."""

from __future__ import annotations

import json
from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in *folder* and the folders in it: path, relative to *folder* → bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images_in(journal: Path) -> int:
    """How many images the journal of an unfinished region store counts; 0 where there is none yet."""
    return int(json.loads(journal.read_text())["state"]["images"]) if journal.exists() else 0
