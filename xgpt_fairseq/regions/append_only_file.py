"""Files of numpy arrays that grow row by row, and may be cut back to where they were."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy.typing as npt

from xgpt_fairseq.regions.format import ArrayFile

HEADER_BYTES: Final = 128


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a `.npy` file, format 1.0, always `HEADER_BYTES` long, so that it can be rewritten in place."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode("latin1")
    text = text.ljust(HEADER_BYTES - 11) + b"\n"
    header = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    if len(header) != HEADER_BYTES:
        raise AssertionError(f"a .npy header of {len(header)} bytes for {dtype} {shape}")
    return header


class AppendOnlyArrayFile:
    """A file that is only appended to, with the crc32 of what came after its header.

    Args:
        path: the file.
        header: what a new file begins with.
        state: what `state` was at some moment: the file is cut back to it. None: the file is made anew.
    """

    def __init__(self, path: Path, *, header: bytes = b"", state: dict[str, int] | None = None) -> None:
        self.path = path
        if state is None:
            path.write_bytes(header)
            self.bytes, self.crc = len(header), 0
        else:
            self.bytes, self.crc = state["bytes"], state["crc32"]
            os.truncate(path, self.bytes)
        self._file: BinaryIO = path.open("ab")

    @property
    def state(self) -> dict[str, int]:
        """Its length and crc32, to be kept in a journal after `sync`."""
        return {"bytes": self.bytes, "crc32": self.crc}

    def append(self, data: npt.NDArray[Any] | bytes) -> None:
        """Add bytes, or an array's in C order."""
        view = memoryview(data) if isinstance(data, bytes) else data.data
        self._file.write(view)
        self.crc = zlib.crc32(view, self.crc)
        self.bytes += view.nbytes

    def sync(self) -> None:
        """Make sure that what was appended is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def finish(self, dtype: str, shape: tuple[int, ...]) -> ArrayFile:
        """Write the header of a finished array, make sure that it is on disk, and say what the file holds."""
        self._file.close()
        with open(self.path, "r+b") as file:
            file.write(npy_header(dtype, shape))
            file.flush()
            os.fsync(file.fileno())
        return ArrayFile(self.path.name, dtype, shape, self.bytes, f"{self.crc:08x}")


def sync_folder(path: Path) -> None:
    """Make sure that the names in a folder are on disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
