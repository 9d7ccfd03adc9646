"""Arrays in mapped files: which bytes the system is asked to read ahead."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xgpt_fairseq.io import arrays
from xgpt_fairseq.io.arrays import map_array, read_ahead

ROWS = 40
PAGE = mmap.PAGESIZE


class Advised:
    """A memory map that keeps what it was advised, and takes it."""

    def __init__(self, real: mmap.mmap) -> None:
        self.real = real
        self.spans: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.real)

    def madvise(self, advice: int, start: int, length: int) -> None:
        assert advice == mmap.MADV_WILLNEED
        self.real.madvise(advice, start, length)
        self.spans.append((start, start + length))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_whole_pages_of_exactly_the_rows(dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).standard_normal((ROWS, 700)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    mapped = map_array(tmp_path / "a.npy")
    real = arrays._map_of(mapped)
    assert real is not None
    advised = Advised(real)
    monkeypatch.setattr(arrays, "_map_of", lambda array: advised if array is mapped else None)
    content = (tmp_path / "a.npy").read_bytes()
    for first, last in ((0, 1), (0, ROWS), (3, 5), (ROWS - 1, ROWS)):
        read_ahead(mapped, first, last)
        start, end = advised.spans.pop()
        rows = values[first:last].tobytes()
        assert start % PAGE == 0 and content[:end].endswith(rows)
        assert 0 <= end - start - len(rows) < PAGE  # no page before them
    assert not advised.spans


def test_what_is_no_file_or_takes_no_advice_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_ahead(np.ones((3, 2)), 0, 3)
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    mapped = map_array(tmp_path / "a.npy")
    read_ahead(mapped, 0, 3)
    read_ahead(mapped, 2000, 2001)  # damaged offsets: reading says so

    class Refuses(Advised):
        def madvise(self, advice: int, start: int, length: int) -> None:
            raise OSError("not supported")

    real = arrays._map_of(mapped)
    assert real is not None
    monkeypatch.setattr(arrays, "_map_of", lambda array: Refuses(real))
    read_ahead(mapped, 0, 3)
    monkeypatch.delattr(mmap, "MADV_WILLNEED")
    monkeypatch.setattr(Refuses, "madvise", None)
    read_ahead(mapped, 0, 3)
