"""TSV files whose columns are base64 of little-endian numbers: their lines, and what is in a line."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# All tabs of a line are in front of the features, in its first few thousand bytes.
FIRST_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class Place:
    """Where a line lies, so that a worker process reads it itself."""

    file: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The line without its end."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length).rstrip(b"\r\n")

    def where(self) -> str:
        """The file and the number of the line. Only errors ask, so that the file is read again for it."""
        number, left = 1, self.offset
        with open(self.file, "rb") as file:
            while left > 0 and (chunk := file.read(min(left, 1 << 24))):
                number += chunk.count(b"\n")
                left -= len(chunk)
        return f"{self.file}, line {number}"


def lines(files: Sequence[Path], position: int = 0) -> Iterator[tuple[Place, bytes, int]]:
    """The lines of *files* that are not empty, from *position* on, which counts bytes over all files.

    Yields:
        (place, line, position behind it)
    """
    start = 0
    for path in files:
        size = path.stat().st_size
        if position < start + size:
            with open(path, "rb", buffering=1 << 20) as file:
                file.seek(max(position - start, 0))
                offset = file.tell()
                for line in file:
                    if line.strip():
                        yield Place(path, offset, len(line)), line, start + offset + len(line)
                    offset += len(line)
        start += size


def first_columns(path: Path) -> list[bytes]:
    """The columns of the first line, the last one cut after some thousand bytes; none of a file that is not text."""
    with open(path, "rb") as file:
        beginning = file.readline(FIRST_LINE_BYTES)
    return [] if b"\0" in beginning or not beginning else beginning.rstrip(b"\r\n").split(b"\t")


def integer(value: Any, column: str) -> int:
    """A whole number. Raises ValueError that names the column."""
    try:
        if isinstance(value, float | bool):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        shown = value[:40] if isinstance(value, bytes | str) else value
        raise ValueError(f"column {column} is {shown!r}, a whole number expected") from None


def decoded(value: Any, column: str) -> bytes:
    """The bytes that base64 stands for. Raises ValueError that names the column."""
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"column {column} is not base64 ({error}): is the line cut?") from None


def array(value: Any, column: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The numbers that base64 stands for. Raises ValueError that names the column, if they are not *shape*."""
    data = decoded(value, column)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise ValueError(
            f"column {column} has {len(data)} bytes, {expected} expected for {np.dtype(dtype).name} {shape}: "
            "is the line cut?"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def feature_width(data: bytes, count: int) -> int:
    """How wide the float32 features of *count* boxes are. Raises ValueError if *data* is not a whole number of them."""
    width, rest = divmod(len(data), 4 * max(count, 1))
    if rest or not width:
        raise ValueError(
            f"column features has {len(data)} bytes, not a whole number of float32 for each of {count} boxes: is the "
            "line cut?"
        )
    return width
