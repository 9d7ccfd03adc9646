"""Files that stay open within a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.archives import layouts
from tests.archives.breaking import IMAGES
from xgpt_fairseq.archives.handle_cache import close_cached, open_cached
from xgpt_fairseq.cli import import_regions


def test_what_stays_open_is_closed_before_a_fork(tmp_path: Path) -> None:
    """LMDB refuses to open in a child what its parent has open, and HDF5 would share the parent's."""
    import multiprocessing

    from xgpt_fairseq.archives.vilbert_lmdb import Database

    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    database = open_cached(path, Database)
    assert open_cached(path, Database) is database
    process = multiprocessing.get_context("fork").Process(target=_entries, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    with pytest.raises(ValueError, match="closed"):
        database.get(b"keys", "item keys")
    assert open_cached(path, Database).entries == len(IMAGES) + 1


def _entries(path: Path) -> None:
    from xgpt_fairseq.archives.vilbert_lmdb import Database

    assert open_cached(path, Database).entries == len(IMAGES) + 1


def test_few_files_stay_open(tmp_path: Path) -> None:
    class Handle:
        open = 0

        def __init__(self, path: Path) -> None:
            Handle.open += 1

        def close(self) -> None:
            Handle.open -= 1

    for number in range(20):
        open_cached(tmp_path / str(number), Handle)
        first = open_cached(tmp_path / "first", Handle)
        assert open_cached(tmp_path / "first", Handle) is first
    assert Handle.open == 4
    close_cached()
    assert Handle.open == 0


def test_no_lock_file_is_left(call_program: Callable[..., Any], tmp_path: Path) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    (path / "lock.mdb").unlink()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert call_program(import_regions.main, path, "--output", tmp_path / "store", "--workers", 2).status == 0
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
