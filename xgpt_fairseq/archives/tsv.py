"""Lines and columns of TSV files with base64 of little-endian numbers."""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError, check_unchanged

# All tabs of a line are in front of the features, in its first few thousand bytes.
FIRST_LINE_BYTES = 1 << 16
# So many lines may be broken before the first one that tells how wide features are.
LOOKED_AT_LINES = 100

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """The location of a line, so that a worker process can read it."""

    file: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The line without its line ending."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length).rstrip(b"\r\n")

    def where(self) -> str:
        """The file and the line number. It is needed for errors only, so the lines are counted then."""
        number, left = 1, self.offset
        with open(self.file, "rb") as file:
            while left > 0 and (chunk := file.read(min(left, 1 << 24))):
                number += chunk.count(b"\n")
                left -= len(chunk)
        return f"{self.file}, line {number}"


def lines(files: Sequence[Path], position: int = 0) -> Iterator[tuple[Place, bytes, int]]:
    """The non-empty lines of *files* from *position* on, which counts bytes over all files.

    Yields:
        (place, line, position after it)
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
            check_unchanged(path, size, offset)
        start += size


def of_first_line(file: Path, look: Callable[[bytes], T]) -> T:
    """What *look*, which may raise ValueError, finds in the first line; if that is broken, in the next one that is not.

    Raises:
        DataError: the first lines are all broken; about the first of them.
    """
    first: DataError | None = None
    for place, line, _ in itertools.islice(lines([file]), LOOKED_AT_LINES):
        try:
            return look(line.rstrip(b"\r\n"))
        except ValueError as error:
            first = first or DataError(f"{place.where()}: {error}")
    raise first or DataError(f"{file}: no lines in it")


def first_columns(path: Path) -> list[bytes]:
    """The columns of the first line, the last truncated to some thousand bytes; none if the file is not text."""
    with open(path, "rb") as file:
        beginning = file.readline(FIRST_LINE_BYTES)
    return [] if b"\0" in beginning or not beginning else beginning.rstrip(b"\r\n").split(b"\t")


def integer(value: Any, column: str) -> int:
    """Parse a whole number. Raises ValueError that names the column."""
    try:
        if isinstance(value, float | bool):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        shown = value[:40] if isinstance(value, bytes | str) else value
        raise ValueError(f"column {column} is {shown!r}, a whole number expected") from None


def decoded(value: Any, column: str) -> bytes:
    """Decode base64. Raises ValueError that names the column."""
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"column {column} is not base64 ({error}): is the line truncated?") from None


def array(value: Any, column: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Decode base64 to an array. Raises ValueError that names the column, also if the array is not *shape*."""
    data = decoded(value, column)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise ValueError(
            f"column {column} has {len(data)} bytes, {expected} expected for {np.dtype(dtype).name} {shape}: "
            "is the line truncated?"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def feature_width(data: bytes, count: int) -> int:
    """The width of *count* float32 features. Raises ValueError if *data* is not a whole number of values for each."""
    width, rest = divmod(len(data), 4 * max(count, 1))
    if rest or not width:
        raise ValueError(
            f"column features has {len(data)} bytes, not a whole number of float32 for each of {count} boxes: is the "
            "line truncated?"
        )
    return width
