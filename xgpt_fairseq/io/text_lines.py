"""Lines of plain or compressed text files, for the readers of text, captions and lists."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from xgpt_fairseq.errors import DataError, check_unchanged

# A file without line breaks must not end up in memory as one line.
LONGEST_LINE = 1 << 24
# A small packed file must not fill the memory where it is read as a whole. Captions are packed to a tenth.
LARGEST_UNPACKED = 1 << 28
MOST_TIMES = 32
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

COMPRESSIONS: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
READ_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)

# How much of a file is read to detect its format.
_HEAD_LINES = 20
HEAD_BYTES = 1 << 16

# What would end a field of a line, or the line, or speak to a terminal; and what escapes it.
_ESCAPES = {ord(char): char.encode("unicode_escape").decode() for char in map(chr, [*range(32), 92, *range(127, 160)])}
_ESCAPES |= {ord(char): char.encode("unicode_escape").decode() for char in "\u2028\u2029"}


def as_field(text: str) -> str:
    r"""*text*, such as a file's name, as a field of a line: a tab is `\t`, a line break `\n`, a backslash `\\`."""
    return text.translate(_ESCAPES)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of *path* with their numbers, from 1, without line endings and without a byte order mark.

    Lines end only with `\\n` or `\\r\\n`: Unicode's other line breaks occur within captions.

    Raises:
        DataError: the file is missing, damaged or not UTF-8, or a line is longer than `LONGEST_LINE`.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        with _opened(path) as file:
            for number in itertools.count(1):
                data = file.readline(LONGEST_LINE)
                if not data:
                    return
                if len(data) == LONGEST_LINE and not data.endswith(b"\n"):
                    raise DataError(f"{path}: line {number} is longer than {LONGEST_LINE >> 20} MiB")
                if number == 1:
                    data = data.removeprefix(BYTE_ORDER_MARK)
                try:
                    text = data.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path} is not UTF-8 text: line {number}, {error.reason}") from error
                yield number, text.removesuffix("\n").removesuffix("\r")
    except READ_ERRORS as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def first_lines(path: Path) -> list[str]:
    """The first non-blank lines of *path*, to detect its format. Empty if *path* is not a file.

    Those that lie within `HEAD_BYTES`; of long records of JSON lines two, however long. A line that is cut off is among
    them only if it is the only one. Invalid UTF-8 is replaced; the format's reader will find damage.

    Raises:
        DataError: a compressed file that cannot be read.
    """
    if not path.is_file():
        return []
    try:
        with _opened(path) as file:
            data = file.read(HEAD_BYTES)
            is_cut = len(data) == HEAD_BYTES
            if is_cut and (records := _two_records(file, data)):
                data, is_cut = records, False
    except READ_ERRORS as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    lines = data.removeprefix(BYTE_ORDER_MARK).decode("utf-8", errors="replace").split("\n")
    if is_cut and len(lines) > 1:
        lines.pop()
    return [line.removesuffix("\r") for line in lines if line.strip()][:_HEAD_LINES]


def _two_records(file: IO[bytes], head: bytes) -> bytes | None:
    """The first two lines of JSON lines of which *head*, what was read of *file*, has less; None if there are no such.

    Only if the first ends like an object is a second one read: a JSON value of a gigabyte may be one line.
    """
    *whole, rest = head.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    lines = [line for line in whole if line.strip()]
    if len(lines) > 1 or not (lines or [rest])[0].lstrip().startswith(b"{"):
        return None
    while len(lines) < 2 and all(line.rstrip().endswith(b"}") for line in lines):
        more = file.readline(LONGEST_LINE)
        if (rest + more).strip():
            lines.append(rest + more)
        rest = b""
        if not more.endswith(b"\n"):  # the end, or too long a line
            break
    return b"\n".join(lines) if len(lines) > 1 else None


def whole_text(path: Path) -> str:
    """The text of *path*, compressed or not, without a byte order mark.

    Raises:
        DataError: the file is damaged, or is so small for what it unpacks to that it was made to fill the memory.
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        with _opened(path) as file:
            if path.suffix not in COMPRESSIONS:
                return file.read().decode("utf-8-sig")
            most = max(LARGEST_UNPACKED, MOST_TIMES * path.stat().st_size)
            data = file.read(most + 1)
        if len(data) > most:
            raise DataError(
                f"{path}: unpacked, it has more than {most:,} bytes, many times those of the file; unpack it first"
            )
        return data.decode("utf-8-sig")
    except READ_ERRORS as error:
        raise DataError(f"{path} cannot be read: {error}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        yield COMPRESSIONS[path.suffix](raw) if path.suffix in COMPRESSIONS else raw
        check_unchanged(path, size, os.fstat(raw.fileno()).st_size)
