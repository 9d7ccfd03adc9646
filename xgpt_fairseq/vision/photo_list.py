"""A list of the photos that an extraction takes, made once and kept on disk, read as a sequence without loading it.

PLACE/list.json        version, what was listed, number of photos, checksum of their names
PLACE/entries.jsonl    a photo a line
PLACE/offsets.npy      (photos + 1,) int64, where each line begins
PLACE/starts.npy       (containers,) int64, at which photos a tar or a table begins; a photo outside one counts as one

An interrupted extraction goes on with its own list, and processes that share an extraction share one, so that a folder
of millions of photos is not searched again. Files that came later are not in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write, read_description, write_json
from xgpt_fairseq.io.tar_members import TarMember
from xgpt_fairseq.vision.photo_files import list_photos
from xgpt_fairseq.vision.photos import PhotoFile
from xgpt_fairseq.vision.table_photos import TableCell

VERSION: Final = 1
DESCRIPTION: Final = "list.json"
ENTRIES: Final = "entries.jsonl"
# Between two looks at whether another process has made the list.
WAIT_SECONDS: Final = 0.2


class PhotoList(Sequence[PhotoFile]):
    """The photos of a list, or a part of them.

    Args:
        place: the list's folder.
        part: which of its photos; None: all.

    Attributes:
        names_sha256: checksum of the names of all.

    Raises:
        DataError: there is no list, or it is of a newer version.
    """

    def __init__(self, place: Path, part: range | None = None) -> None:
        value = read_description(
            place / DESCRIPTION, what="a list of photos", made_by="xgpt-extract-regions", newest=VERSION
        )
        self.place = place
        self.names_sha256: str = value["names_sha256"]
        self.given: list[str] = value["given"]
        self.lock: int | None = None  # a descriptor, which holds the list as long as it is open
        self._part = range(value["photos"]) if part is None else part
        self._offsets = np.load(place / "offsets.npy", mmap_mode="r")
        self._entries = np.memmap(place / ENTRIES, dtype=np.uint8, mode="r")

    def close(self) -> None:
        """Let other processes make the list anew."""
        if self.lock is not None:
            _flock(self.lock, fcntl.LOCK_UN)  # closed, it would still be held by processes that were forked meanwhile
            os.close(self.lock)
            self.lock = None

    def __len__(self) -> int:
        return len(self._part)

    @overload
    def __getitem__(self, index: int) -> PhotoFile: ...

    @overload
    def __getitem__(self, index: slice) -> PhotoList: ...

    def __getitem__(self, index: int | slice) -> PhotoFile | PhotoList:
        if isinstance(index, slice):
            return PhotoList(self.place, self._part[index])
        place = self._part[index]
        return _photo(bytes(self._entries[int(self._offsets[place]) : int(self._offsets[place + 1])]))

    def __iter__(self) -> Iterator[PhotoFile]:
        return (self[index] for index in range(len(self)))


def container_starts(files: Sequence[PhotoFile]) -> npt.NDArray[np.int64]:
    """At which of *files*, a whole list, a tar or a table begins; every photo outside one counts as one."""
    if isinstance(files, PhotoList):
        kept: npt.NDArray[np.int64] = np.load(files.place / "starts.npy", mmap_mode="r")
        return kept
    starts, before = [], None
    for number, file in enumerate(files):
        container = file.tar or (file.cell.table if file.cell else None)
        if container is None or container != before:
            starts.append(number)
        before = container
    return np.array(starts, dtype=np.int64)


def listed_photos(
    paths: Sequence[Path],
    place: Path,
    *,
    given: Sequence[str],
    exclude: Sequence[Path],
    again: bool,
    unique: bool = True,
) -> tuple[PhotoList, float | None]:
    """The list *place* of the photos in *paths*; made, unless it is there.

    Where another process makes it, this one waits. As long as the list is kept, no other process can make it anew.

    Args:
        paths, exclude: as `find_photos`.
        given: what the user gave, as text, which a list that is there must have been made of.
        again: make it anew.
        unique: whether image ids must be.

    Returns:
        tuple: the list; and when it was made (seconds since 1970), None if it was made now.

    Raises:
        DataError: the list that is there is of other paths; it is to be made anew and another process reads it; or see
            `list_photos`.
    """
    while True:
        lock, alone = _locked(place, again)
        try:
            made = None
            if again or not (place / DESCRIPTION).exists():
                _make(paths, place, given=given, exclude=exclude, unique=unique, alone=alone)
            else:
                made = (place / DESCRIPTION).stat().st_mtime
            _flock(lock, fcntl.LOCK_SH)
            if _is_of(lock, place):
                found = PhotoList(place)
                if found.given != list(given) and not _is_of_earlier_version(found, given):
                    raise DataError(
                        f"{place} is the list of the photos in {', '.join(found.given)}, not in {', '.join(given)}: "
                        "remove it to begin with others"
                    )
                found.lock = lock
                return found, made
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _is_of_earlier_version(found: PhotoList, given: Sequence[str]) -> bool:
    """Whether *found* was made of *given* by a version that did not record from where --list names relative paths.

    That its photos are here says that it was from here.
    """
    before = [text.rsplit(" (from ", 1)[0] if text.startswith("--list ") else text for text in given]
    return found.given == before and all(
        (file.tar or (file.cell.table if file.cell else file.path)).exists() for file in found
    )


def remove_list(place: Path) -> None:
    """Remove the list *place*, if there is one, unless another process makes it, or reads it."""
    if not place.is_dir():
        return
    lock = _open_lock(place)
    try:
        if _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False and _is_of(lock, place):
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)
    with contextlib.suppress(OSError):  # NFS keeps a file that is open, and so its folder, until now
        place.rmdir()


def _make(
    paths: Sequence[Path],
    place: Path,
    *,
    given: Sequence[str],
    exclude: Sequence[Path],
    unique: bool,
    alone: bool | None,
) -> None:
    """Make the list. Of one that can't be made nothing is left, if this process has it alone."""
    try:
        _write(list_photos(paths, exclude=exclude, unique=unique), place, given)
    except BaseException:
        if alone and not (place / DESCRIPTION).exists():
            shutil.rmtree(place, ignore_errors=True)
        raise


def _locked(place: Path, again: bool) -> tuple[int, bool | None]:
    """The lock of the list *place*, for this process alone if the list is to be made, else shared, for reading it.

    Returns:
        tuple: its descriptor; and whether this process has the lock, None where there are no locks.
    """
    while True:
        lock = _open_lock(place)
        try:
            # Another process that makes the list has the lock for itself; then it shares it, for as long as it reads.
            while (has_it := _flock(lock, _kind(place, again) | fcntl.LOCK_NB)) is False:
                if again:
                    raise DataError(f"another process takes the photos of the list {place}: wait for it, or stop it")
                time.sleep(WAIT_SECONDS)
        except BaseException:
            os.close(lock)
            raise
        if _is_of(lock, place):
            return lock, has_it
        os.close(lock)  # of a list that was removed while this process waited


def _kind(place: Path, again: bool) -> int:
    return fcntl.LOCK_SH if (place / DESCRIPTION).exists() and not again else fcntl.LOCK_EX


def _open_lock(place: Path) -> int:
    while True:
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed in this moment
            return os.open(place / "lock", os.O_CREAT | os.O_RDWR)


def _is_of(lock: int, place: Path) -> bool:
    """Whether *lock* is still that of the list *place*; else the list was removed, and perhaps made anew."""
    try:
        return os.path.samestat(os.fstat(lock), (place / "lock").stat())
    except FileNotFoundError:
        return False


def _flock(lock: int, kind: int) -> bool | None:
    """Whether the lock is taken; with LOCK_NB, False if another process has it. Of a process that ended, it is free.

    None: some network file systems have no locks; the user must then avoid concurrent runs.
    """
    try:
        fcntl.flock(lock, kind)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def listed_at(seconds: float) -> str:
    """When a list was made, in words."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _write(files: Sequence[PhotoFile], place: Path, given: Sequence[str]) -> None:
    offsets, names = np.zeros(len(files) + 1, dtype=np.int64), hashlib.sha256()
    with atomic_write(place / ENTRIES) as aside, open(aside, "wb") as entries:
        for number, file in enumerate(files):
            line = json.dumps(_entry(file)).encode() + b"\n"  # in ASCII: names of files may be no Unicode
            entries.write(line)
            offsets[number + 1] = offsets[number] + len(line)
            names.update(f"{chr(10) if number else ''}{file.name}".encode("utf-8", "surrogateescape"))
    for name, array in (("offsets.npy", offsets), ("starts.npy", container_starts(files))):
        with atomic_write(place / name) as aside, open(aside, "wb") as file_of_array:
            np.save(file_of_array, array)
    description = {"version": VERSION, "photos": len(files), "names_sha256": names.hexdigest(), "given": list(given)}
    write_json(place / DESCRIPTION, description)


def _entry(file: PhotoFile) -> list[Any]:
    """What a line says of a photo."""
    member = None if file.member is None else dataclasses.astuple(file.member)
    cell = file.cell and [str(file.cell.table), file.cell.column, file.cell.row, file.cell.size]
    tar = None if file.tar is None else str(file.tar)
    return [str(file.path), file.name, file.image_id, file.folder, tar, member, cell, file.reason]


def _photo(line: bytes) -> PhotoFile:
    path, name, image_id, folder, tar, member, cell, reason = json.loads(line)
    return PhotoFile(
        Path(path),
        name=name,
        image_id=image_id,
        folder=folder,
        tar=None if tar is None else Path(tar),
        member=None if member is None else TarMember(*member),
        cell=None if cell is None else TableCell(Path(cell[0]), *cell[1:]),
        reason=reason,
    )
