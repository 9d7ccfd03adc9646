"""HDF5 files of many named arrays. h5py, of the extra `archives`, is imported when a file is opened.

HDF5 can say that an array lies in another file, by a link, a virtual array or external storage; whoever made an archive
could so have any file of this machine read. Arrays of the file itself are read, and no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives.handle_cache import open_cached
from xgpt_fairseq.errors import DataError, foreign_bytes
from xgpt_fairseq.io.arrays import check_array_size

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_PROBLEM: Final = "is not readable as HDF5"


def is_hdf5(path: Path) -> bool:
    """Whether *path* is a file with the HDF5 signature."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def open_hdf5(path: Path) -> Any:
    """The h5py.File, for reading.

    Raises:
        DataError: h5py is not installed, or *path* is not a complete HDF5 file.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(f'{path}: reading HDF5 files needs h5py: pip install "xgpt-fairseq[archives]"') from None
    with foreign_bytes(path, _PROBLEM):
        return h5py.File(path, "r")


def array_names(path: Path) -> list[str]:
    """The names in the file's root, sorted."""
    with open_hdf5(path) as file, foreign_bytes(path, _PROBLEM):
        return sorted(file)


def array_count(path: Path) -> int:
    """The number of names in the file's root, without reading them."""
    with open_hdf5(path) as file, foreign_bytes(path, _PROBLEM):
        return len(file)


def find_array(path: Path, name: str) -> npt.NDArray[Any] | None:
    """The array *name* of the file, which stays open in this process; None if the file has none of this name.

    Raises:
        DataError: the file is missing or damaged, the array lies in another file, is not of numbers, or has more than
            `LARGEST_ARRAY` bytes.
    """
    file = open_cached(path, open_hdf5)
    where = f"{path}, array {name}:"
    with foreign_bytes(where, "not readable"):
        if _is_elsewhere(file, name):
            raise DataError(f"{path}, array {name}: it is a link, perhaps to another file; links are not followed")
        found = file.get(name)
        if not hasattr(found, "shape"):
            return None
        _check_storage(found, f"{path}, array {name}")
        array: npt.NDArray[Any] = np.asarray(found[()])
        return array


def _is_elsewhere(file: Any, name: str) -> bool:
    """Whether *name*, or a part of it, is a link by name: within the file, or to another one."""
    import h5py

    parts = name.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:count]), getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            return True
    return False


def _check_storage(found: Any, where: str) -> None:
    """Raise DataError where the array *found* lies in another file, or reading it takes more memory than it may."""
    if found.is_virtual or found.external:
        raise DataError(f"{where}: its values are in another file, which is not read")
    if found.dtype.hasobject:
        raise DataError(f"{where}: an array of {found.dtype}, not of numbers")
    # an array that the file says to have, and has no bytes of, is filled in memory
    check_array_size(tuple(found.shape or ()), found.dtype.itemsize, where)
    # of an array that may grow, a chunk can be larger than the array, and is unpacked as a whole
    check_array_size(tuple(found.chunks or ()), found.dtype.itemsize, f"{where}, in chunks")


def read_array(path: Path, name: str) -> npt.NDArray[Any]:
    """Like `find_array`, but raise DataError if the array is missing."""
    found = find_array(path, name)
    if found is None:
        raise DataError(f"{path}: no array {name!r} in it")
    return found
