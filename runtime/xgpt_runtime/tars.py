"""Photos in tars, found by reading their headers once: as `xgpt_fairseq.io.tar_members` does it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from xgpt_runtime.errors import DataError

_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_COMPRESSED_NAMES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_CHUNK = 1 << 20
# The most of a tar that `tarfile` may read at a time: long names, and other records of headers.
_LARGEST_RECORD = 1 << 20


class DamagedTarError(DataError):
    """A file is no tar, or a damaged one.

    Attributes:
        reason: why, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class TarMember:
    """A file in a tar.

    Attributes:
        name: its path in the tar, with `/` between folders.
        offset, size: the place of its content in the tar, in bytes.
        reason: why its content cannot be read there; empty if it can.
    """

    name: str
    offset: int
    size: int
    reason: str = ""

    @property
    def is_hidden(self) -> bool:
        """Whether its name, or that of a folder of it, begins with a dot, as what macOS adds does."""
        return any(part.startswith(".") for part in self.name.split("/"))


def has_compressed_tar_name(path: Path) -> bool:
    """Whether *path* is named as a compressed tar."""
    return path.name.lower().endswith(_COMPRESSED_NAMES)


def check_not_compressed(path: Path, file: BinaryIO) -> None:
    """Raises DataError where *file*, at its beginning, holds compressed data, or *path* is named so."""
    compressed = file.read(6).startswith(_MAGIC)
    file.seek(0)
    if compressed or has_compressed_tar_name(path):
        raise DataError(
            f"{path} is a compressed tar, of which no member can be read without those before it: decompress it "
            "(photos are compressed already)"
        )


def tar_members(path: Path) -> Iterator[TarMember]:
    """The files in a tar, in its order, links among them with the reason why they are not read.

    Raises:
        DamagedTarError: *path* is no tar, or cut or damaged somewhere; what is before that is yielded.
        DataError: it is compressed, or cannot be opened.
    """
    try:
        with open(path, "rb") as raw:
            check_not_compressed(path, raw)
            yield from _members(path, raw)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


class _Records:
    """A tar, of which `tarfile` reads headers: one may claim to be a name of gigabytes, and would be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_RECORD:
            raise tarfile.ReadError(f"a name or another record in it has {size:,} bytes")
        return self._file.read(size)


def read_member(path: Path, offset: int, size: int) -> bytes:
    """The content of a member of the tar *path*.

    Raises:
        DataError: the tar has been cut or has vanished since the member was found in it.
    """
    content = b""
    try:
        with open(path, "rb") as raw:
            if offset + size <= os.fstat(raw.fileno()).st_size:  # before memory is taken for it
                raw.seek(offset)
                content = raw.read(size)
    except FileNotFoundError:
        pass
    if len(content) < size:
        raise DataError(f"{path} was cut, or vanished, while it was read")
    return content


def _members(path: Path, raw: BinaryIO) -> Iterator[TarMember]:
    last = "its beginning"
    try:
        with tarfile.open(fileobj=cast("BinaryIO", _Records(raw)), mode="r:", errorlevel=2) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
                last = info.name
                if info.isdir():
                    continue
                reason = ""
                if not info.isreg():
                    reason = "a link or another special file in the tar, not a photo itself"
                elif info.issparse():
                    reason = "stored with holes in the tar; store it whole"
                name = "/".join(part for part in info.name.split("/") if part not in ("", "."))
                yield TarMember(name, info.offset_data, info.size, reason)
            end = tar.offset
    except (
        tarfile.TarError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:  # also headers of headers, without end
        raise DamagedTarError(path, f"no tar, or cut or damaged behind {last}: {error}") from None
    # tarfile takes a header that is damaged, or cut, for the end. Behind the end there are zeros, up to the last byte.
    raw.seek(end)
    while chunk := raw.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise DamagedTarError(path, f"damaged behind {last}, or another tar is appended to its end")
