"""Append-only files that can be truncated to an earlier length: arrays, lines of text, arrays in shards.

Each has a `state`, which is kept in a journal after `sync`. A file that is opened with a state is truncated to it.
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.format import ArrayFile

HEADER_BYTES: Final = 128
LINES_AT_ONCE: Final = 1 << 16

Array = npt.NDArray[Any]
State = dict[str, Any]


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a `.npy` file, format 1.0, always `HEADER_BYTES` long, so that it can be rewritten in place."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode("latin1")
    text = text.ljust(HEADER_BYTES - 11) + b"\n"
    header = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    if len(header) != HEADER_BYTES:
        raise AssertionError(f"a .npy header of {len(header)} bytes for {dtype} {shape}")
    return header


class Column(Protocol):
    """The interface of a file, or a set of files, to the writer."""

    @property
    def state(self) -> State: ...

    @property
    def files(self) -> list[str]:
        """The names of the files."""

    def append(self, rows: Any) -> None: ...

    def sync(self) -> None:
        """Flush to disk."""

    def close(self) -> None: ...

    def finish(self) -> Any:
        """Complete the files, and return their description."""


class AppendOnlyFile:
    """A file of bytes, with the crc32 of everything after its header.

    Args:
        path: the file.
        header: the beginning of a new file.
        state: a previous value of `state`, to which the file is truncated. None: a new file.

    Raises:
        DataError: the file is shorter than its state says.
    """

    def __init__(self, path: Path, *, header: bytes = b"", state: State | None = None) -> None:
        self.path = path
        if state is None:
            path.write_bytes(header)
            self.bytes, self.crc = len(header), 0
        else:
            self.bytes, self.crc = state["bytes"], state["crc32"]
            check_length(path, self.bytes)
            os.truncate(path, self.bytes)
        self._file: BinaryIO = path.open("ab")

    @property
    def state(self) -> State:
        return {"bytes": self.bytes, "crc32": self.crc}

    @property
    def files(self) -> list[str]:
        return [self.path.name]

    def write(self, data: bytes | Array) -> None:
        """Append bytes, or the bytes of an array in C order."""
        view = memoryview(data) if isinstance(data, bytes) else data.data
        self._file.write(view)
        self.crc = zlib.crc32(view, self.crc)
        self.bytes += view.nbytes

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class AppendOnlyArray(AppendOnlyFile):
    """A `.npy` file of rows of *dtype* and *row_shape*."""

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...] = (), *, state: State | None = None) -> None:
        super().__init__(path, header=npy_header(dtype, (0, *row_shape)), state=state)
        self.dtype = dtype
        self.row_shape = row_shape

    def __len__(self) -> int:
        """The number of rows."""
        return (self.bytes - HEADER_BYTES) // (math.prod(self.row_shape) * np.dtype(self.dtype).itemsize)

    def append(self, rows: Array) -> None:
        """Append rows, (n, *row_shape) of the file's dtype."""
        self.write(rows)

    def finish(self) -> ArrayFile:
        """Write the header of the finished array, flush it to disk, and return the file's description."""
        self.close()
        shape = (len(self), *self.row_shape)
        with open(self.path, "r+b") as file:
            file.write(npy_header(self.dtype, shape))
            file.flush()
            os.fsync(file.fileno())
        return ArrayFile(self.path.name, self.dtype, shape, self.bytes, f"{self.crc:08x}")


class AppendOnlyLines(AppendOnlyFile):
    """Strings for an array of fixed-width bytes, kept as a file of lines until the longest is known.

    Args:
        path: the file of lines.
        array_path: the `.npy` file that `finish` writes.
    """

    def __init__(self, path: Path, array_path: Path, *, state: State | None = None) -> None:
        super().__init__(path, state=state)
        self.array_path = array_path
        self.widest = 0 if state is None else int(state["widest"])

    @property
    def state(self) -> State:
        return {**super().state, "widest": self.widest}

    def append(self, lines: Sequence[bytes]) -> None:
        """Append strings without line breaks."""
        self.write(b"".join(line + b"\n" for line in lines))
        self.widest = max(self.widest, *map(len, lines))

    def finish(self) -> ArrayFile:
        """Write the array in chunks, and return its description. The file of lines stays."""
        self.close()
        array = AppendOnlyArray(self.array_path, f"|S{max(self.widest, 1)}")
        with open(self.path, "rb") as lines:
            while piece := list(itertools.islice(lines, LINES_AT_ONCE)):
                array.append(np.array([line[:-1] for line in piece], dtype=array.dtype))
        return array.finish()


class AppendOnlyShards:
    """Region features, (regions, *width*) float16, in files `features-00000.npy` … of at most *shard_regions* each.

    Regions that are appended together go into the same file. They may exceed its limit only if they are alone in it.
    """

    def __init__(self, folder: Path, width: int, shard_regions: int, *, state: State | None = None) -> None:
        self._folder = folder
        self._width = width
        self._shard_regions = shard_regions
        self._finished: list[ArrayFile] = []
        for regions, size, crc32 in [] if state is None else state["finished"]:
            check_length(self._path, size)
            self._finished.append(ArrayFile(self._path.name, "<f2", (regions, width), size, crc32))
        self._open = self._open_shard(None if state is None else state["open"])

    @property
    def _path(self) -> Path:
        """The path of the current shard."""
        return self._folder / f"features-{len(self._finished):05d}.npy"

    def _open_shard(self, state: State | None = None) -> AppendOnlyArray:
        return AppendOnlyArray(self._path, "<f2", (self._width,), state=state)

    @property
    def state(self) -> State:
        finished = [[shard.shape[0], shard.bytes, shard.crc32] for shard in self._finished]
        return {"finished": finished, "open": self._open.state}

    @property
    def files(self) -> list[str]:
        return [*(shard.file for shard in self._finished), self._open.path.name]

    def append(self, rows: Array) -> None:
        """Append the features of an image."""
        if len(self._open) and len(self._open) + len(rows) > self._shard_regions:
            self._finished.append(self._open.finish())
            self._open = self._open_shard()
        self._open.append(rows)

    def sync(self) -> None:
        self._open.sync()

    def close(self) -> None:
        self._open.close()

    def finish(self) -> tuple[ArrayFile, ...]:
        return (*self._finished, self._open.finish())


def check_length(path: Path, expected: int) -> None:
    """Raise DataError if a file has fewer bytes than expected."""
    found = path.stat().st_size if path.exists() else 0
    if found < expected:
        raise DataError(f"{path.name} has {found} bytes, at least {expected} expected")
