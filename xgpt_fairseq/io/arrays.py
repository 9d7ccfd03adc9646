"""numpy's files from anywhere: arrays in `.npy` and `.npz`, read with limits, or mapped."""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError, foreign_bytes

# The most that one array may have, unpacked, where its file can be smaller: a few kilobytes of a zip can be gigabytes.
LARGEST_ARRAY: Final = 1 << 28

_MAGIC: Final = np.lib.format.MAGIC_PREFIX
_ZIP: Final = b"PK"


def load_array(path: Path, key: str) -> npt.NDArray[Any]:
    """The array in the `.npy` file *path*, or the one called *key* in an `.npz`. Pickled objects are refused.

    Raises:
        DataError: the file is missing or damaged, has no such array, or one of more than `LARGEST_ARRAY` bytes.
    """
    with foreign_bytes(path), open(path, "rb") as file:
        beginning = file.read(len(_MAGIC))
        file.seek(0)
        if beginning.startswith(_ZIP):
            return _load_member(file, key, path)
        if not beginning.startswith(_MAGIC):
            raise DataError(f"{path} is not readable: it is no .npy and no .npz; a pickle is never loaded")
        return _load(file, path.stat().st_size)


def map_array(path: Path) -> npt.NDArray[Any]:
    """The array in the `.npy` file *path*, memory-mapped, read-only.

    Raises:
        DataError: the file is missing or damaged.
    """
    with foreign_bytes(path, "is damaged"):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        # The mapping as a plain ndarray, whose indexing is several times as fast as np.memmap's.
        plain: npt.NDArray[Any] = mapped.view(np.ndarray)
        return plain


def check_not_cut(mapped: npt.NDArray[Any], folder: Path | str, name: str = "") -> None:
    """Raise DataError where the mapped file of *mapped* is shorter than its map: reading it would kill the process.

    It takes a microsecond. A file that is cut in the moment between this and the reading is not noticed.
    """
    base = _map_of(mapped)
    if base is not None and base.size() < len(base):
        raise DataError(
            f"{Path(folder, name)} was cut to {base.size():,} bytes while it was in use, {len(base):,} expected"
        )


def read_ahead(mapped: npt.NDArray[Any], first: int, last: int) -> None:
    """Ask the system to read rows *first* to *last* - 1 of the mapped file of *mapped*, an array as from `map_array`.

    It is advice, and the call returns at once. Without it a file that is not in memory is read page fault by page
    fault, each of which waits for some 128 KB. An array in memory, or a system without such advice: nothing is done.
    """
    base = _map_of(mapped)
    if base is None or not hasattr(mmap, "MADV_WILLNEED"):
        return
    row = math.prod(mapped.shape[1:]) * mapped.itemsize  # bytes
    begin = len(base) - mapped.nbytes  # of the array in its map, which ends with it
    start, end = begin + first * row, begin + last * row
    start -= start % mmap.PAGESIZE  # the system rounds the end
    with contextlib.suppress(OSError, ValueError):  # a file system takes no advice; rows that reading will refuse
        base.madvise(mmap.MADV_WILLNEED, start, end - start)


def _map_of(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The memory map that *array* is in; None where it is in memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that *file* (`.npy`) holds; what follows is its content.

    Raises:
        ValueError: the header is damaged, as is any other exception that numpy's parser may raise.
    """
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f".npy format {version}")
    shape, _, dtype = read(file)
    return shape, dtype


def check_array_size(shape: tuple[int, ...], itemsize: int, where: object) -> None:
    """Raise DataError where an array of *shape* has more than `LARGEST_ARRAY` bytes, before memory is taken for it."""
    if math.prod(shape) * itemsize > LARGEST_ARRAY:
        raise DataError(f"{where}: an array of shape {shape}; at most {LARGEST_ARRAY >> 20} MiB are read")


def _load_member(file: BinaryIO, key: str, path: Path) -> npt.NDArray[Any]:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if key not in names:
            raise DataError(f"{path}: no array {key!r} in it; found: {', '.join(names)[:200]}")
        member = archive.infolist()[names.index(key)]
        with archive.open(member) as content:
            # The size that the zip says may be wrong, too.
            data = content.read(LARGEST_ARRAY + 1)
    if len(data) > LARGEST_ARRAY:
        raise DataError(f"{path}: array {key!r} has more than the {LARGEST_ARRAY >> 20} MiB that are read")
    return _load(io.BytesIO(data), len(data))


def _load(file: BinaryIO, size: int) -> npt.NDArray[Any]:
    """An array whose file has *size* bytes: no more memory is taken than that."""
    shape, dtype = read_header(file)
    if not dtype.hasobject and min(shape, default=0) >= 0:
        expected = math.prod(shape) * dtype.itemsize
        if expected != (found := size - file.tell()):
            raise ValueError(f"{found} bytes for an array {dtype} of shape {shape}, {expected} expected")
    file.seek(0)
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
