"""vilbert-lmdb: region features of ViLBERT, 12-in-1 and MMF in LMDB, a pickled dictionary per image.

Layouts: facebookresearch/vilbert-multi-task, `vilbert/datasets/_image_features_reader.py` and
`script/convert_to_lmdb.py`; facebookresearch/mmf, `tools/scripts/features/lmdb_conversion.py`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives import safe_pickle
from xgpt_fairseq.archives import tsv as tsv_files
from xgpt_fairseq.archives.base import BoxKind, IndexedRegionReader, Pending, Record, check_boxes
from xgpt_fairseq.archives.handle_cache import close_cached, open_cached
from xgpt_fairseq.archives.mmf_npy import array_in, record_of, size_in
from xgpt_fairseq.errors import DataError, check_unchanged
from xgpt_fairseq.regions.validation import check_feature_shape

DATA: Final = "data.mdb"
MAGIC: Final = (0xBEEFC0DE).to_bytes(4, "little")
PAGE_HEADER_BYTES: Final = (16, 24)  # in front of the first page's contents, in LMDB 0.9 and 1.0
IDS: Final = b"keys"

# Pages that were read stay in memory while the database is open, so it is reopened now and then.
MAPPED_LIMIT: Final = 1 << 26
_mapped = 0


@dataclass(frozen=True)
class PendingItem:
    """One image: an item of the database."""

    database: Path
    key: bytes

    def where(self) -> str:
        return f"{self.database}, item {_name(self.key)}"

    def decode(self) -> Record:
        where = self.where()
        value = _read(self.database, self.key, where)
        if value is None:
            raise DataError(f"{where}: not there, but in the database's list of ids ({IDS.decode()})")
        item = safe_pickle.loads(value, where)
        if not isinstance(item, dict):
            raise DataError(f"{where}: it holds {type(item).__name__}; a dictionary expected")
        if "bbox" in item:  # MMF's; the key is a path
            features = array_in(item, "features", where)
            check_feature_shape(features, where)
            return record_of(_name(self.key).rsplit("/", 1)[-1], features, item, where)
        return self._record(item, where)

    def _record(self, item: dict[str, Any], where: str) -> Record:
        image_id = str(item.get("image_id", _name(self.key)))
        if image_id != _name(self.key):
            raise DataError(f"{where}: its image_id is {image_id!r}; its key expected")
        missing = [key for key in ("boxes", "features") if key not in item]
        if missing:
            raise DataError(f"{where}: no {' and no '.join(missing)}; found: {', '.join(map(str, item))}")
        if isinstance(item["features"], np.ndarray):
            features, boxes = item["features"], array_in(item, "boxes", where)
        else:
            features, boxes = _from_base64(item, where)
        check_feature_shape(features, where)
        check_boxes(boxes, len(features), where)
        return Record(image_id, features, boxes, size=size_in(item, "image_w", "image_h", where))


class VilbertLmdbReader(IndexedRegionReader):
    """Positions count images, by key."""

    name: ClassVar[str] = "vilbert-lmdb"
    layout: ClassVar[str] = f"an LMDB folder (with {DATA}) or file, with a pickled dictionary per image"
    box_kind: BoxKind = "pixel"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        file = _data_file(path)
        return None if file is None else f"the LMDB database {file.name} of {file.stat().st_size / 1e6:.1f} MB"

    def __init__(self, path: Path) -> None:
        file = _data_file(path)
        if file is None:
            raise DataError(f"{path}: {self.layout} expected")
        self.path = path
        close_cached()  # LMDB refuses a database that this process has open, for another reader of it
        with contextlib.closing(Database(path)) as database:
            entries = database.entries
            value = database.get(IDS, f"{path}, item {IDS.decode()}")
        if value is None:
            raise DataError(f"{path}: no item {IDS.decode()!r}, the list of all ids: was writing it interrupted?")
        self.names = _keys(safe_pickle.loads(value, f"{path}, item {IDS.decode()}"), path)
        if len(self.names) != entries - 1:
            raise DataError(
                f"{path}: {entries - 1} items, {len(self.names)} ids in the list {IDS.decode()!r}; equal numbers "
                "expected"
            )
        self.bytes = file.stat().st_size

    def find(self, name: bytes) -> Pending:
        return PendingItem(self.path, name)

    def about(self) -> dict[str, Any]:
        return {"bytes": self.bytes}

    def written(self, name: bytes) -> str:
        return _name(name)

    def close(self) -> None:
        close_cached()


class Database:
    """An LMDB database, open for reading, without a lock file.

    LMDB maps its file, and reading behind the end of a file ends the process. So the size is looked at before every
    reading: it takes a microsecond, and a file that is cut in that moment is not noticed.

    Args:
        path: its folder or file.

    Raises:
        DataError: lmdb is not installed, or *path* is not a complete LMDB database.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError:
            raise DataError(f'{path}: reading LMDB needs lmdb: pip install "xgpt-fairseq[archives]"') from None
        self.path = path
        with contextlib.ExitStack() as files:
            try:
                self._file = files.enter_context(open(path / DATA if path.is_dir() else path, "rb"))
                self._opened = files.enter_context(
                    lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False)
                )
            except (OSError, lmdb.Error) as error:
                raise DataError(f"{path} is not readable as LMDB: {error}") from None
            self._size = os.fstat(self._file.fileno()).st_size
            needed = (self._opened.info()["last_pgno"] + 1) * self._opened.stat()["psize"]
            if self._size < needed:
                raise DataError(f"{path} has {self._size} bytes, {needed} expected: it is truncated")
            self._files = files.pop_all()

    @property
    def entries(self) -> int:
        """The number of its items."""
        return int(self._opened.stat()["entries"])

    def get(self, key: bytes, where: str) -> bytes | None:
        """The value of *key*, None if there is none.

        Raises:
            ChangedError: the file has been cut since it was opened.
            DataError: the database is damaged.
        """
        import lmdb

        check_unchanged(self.path, self._size, os.fstat(self._file.fileno()).st_size)
        try:
            with self._opened.begin() as transaction:
                return transaction.get(key)
        except lmdb.Error as error:
            raise DataError(f"{where}: not readable: {error}") from None

    def close(self) -> None:
        self._files.close()


def _read(path: Path, key: bytes, where: str) -> bytes | None:
    """The value of *key* in the database at *path*, which stays open in this process."""
    global _mapped
    value = open_cached(path, Database).get(key, where)
    _mapped += len(value or b"")
    if _mapped > MAPPED_LIMIT:
        close_cached()
        _mapped = 0
    return value


def _data_file(path: Path) -> Path | None:
    file = path / DATA if path.is_dir() else path
    if not file.is_file():
        return None
    with open(file, "rb") as stream:
        beginning = stream.read(64)
    return file if any(beginning[start:].startswith(MAGIC) for start in PAGE_HEADER_BYTES) else None


def _keys(ids: Any, path: Path) -> list[bytes]:
    """The keys of all images as sorted bytes, as which Python 2 writes strings."""
    if not isinstance(ids, list) or not all(isinstance(key, bytes | str) for key in ids):
        raise DataError(f"{path}, item {IDS.decode()}: a list of ids expected")
    return sorted(key.encode("latin1") if isinstance(key, str) else key for key in ids)


def _name(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _from_base64(item: dict[str, Any], where: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Features and boxes, float32 in base64, as in the first version of ViLBERT."""
    try:
        count = tsv_files.integer(item.get("num_boxes"), "num_boxes")
        boxes = tsv_files.array(item["boxes"], "boxes", "<f4", (count, 4))
        data = tsv_files.decoded(item["features"], "features")
        width = tsv_files.feature_width(data, count)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    return np.frombuffer(data, dtype="<f4").reshape(-1, width), boxes
