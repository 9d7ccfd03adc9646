"""Writing files so that a reader never sees half of one: write aside, then rename."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside *path*; rename it to *path* when the block ends well, delete it otherwise."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write *value* as JSON (UTF-8, non-ASCII characters kept) under *path*, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
