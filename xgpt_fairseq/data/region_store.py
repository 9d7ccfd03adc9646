"""The region store: region features, boxes and image ids on disk, memory-mapped.

A store is a folder of plain `.npy` files and one `store.json`, written by `region_writer.RegionWriter`:

    store.json           format version, counts, sizes and checksums of the files, how the store was made
    features-00000.npy   (rows, D) float16; the regions of an image are adjacent and in one shard
    boxes.npy            (rows, 4) float32, x1 y1 x2 y2 in 0..1 of the image's width and height
    offsets.npy          (images + 1,) int64; image i has the rows offsets[i] to offsets[i + 1]
    ids.npy              (images,) fixed-width bytes: the image ids (see `canonical_image_id`), UTF-8
    scores.npy           optional (rows,) float32, the detector's confidence, descending within an image
    labels.npy           optional (rows,) fixed-width bytes: class names, UTF-8
    sizes.npy            optional (images, 2) int32, width and height of the photo in pixels

Checksums are the crc32 of an array's bytes, its `.npy` header left out.
"""

from __future__ import annotations

import bisect
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.data.image_id import canonical_image_id
from xgpt_fairseq.errors import DataError

FORMAT_NAME: Final = "xgpt_fairseq region store"
FORMAT_VERSION: Final = 1
MAX_REGIONS: Final = 100
MANIFEST: Final = "store.json"

# A mapped file holds a file descriptor, and a process usually may have 1024 of them.
MAX_MAPPED_SHARDS: Final = 512
CHUNK_BYTES: Final = 1 << 24

FloatArray = npt.NDArray[np.float32]
HalfArray = npt.NDArray[np.float16]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArrayFile:
    """One `.npy` file of a store and what it must hold. `bytes` is the whole file's size."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    crc32: str

    @property
    def header_bytes(self) -> int:
        return self.bytes - math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Manifest:
    """What `store.json` says."""

    feature_dim: int
    images: int
    rows: int
    images_cut: int
    shards: tuple[ArrayFile, ...]
    arrays: dict[str, ArrayFile]
    source: dict[str, Any]

    @property
    def files(self) -> tuple[ArrayFile, ...]:
        return (*self.arrays.values(), *self.shards)

    def to_json(self) -> dict[str, Any]:
        shards = []
        first_row = 0
        for shard in self.shards:
            shards.append(
                {
                    "file": shard.file,
                    "first_row": first_row,
                    "rows": shard.shape[0],
                    "bytes": shard.bytes,
                    "crc32": shard.crc32,
                }
            )
            first_row += shard.shape[0]
        arrays = {
            name: {
                "file": array.file,
                "dtype": array.dtype,
                "shape": list(array.shape),
                "bytes": array.bytes,
                "crc32": array.crc32,
            }
            for name, array in self.arrays.items()
        }
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "feature_dim": self.feature_dim,
            "dtype": "float16",
            "images": self.images,
            "rows": self.rows,
            "images_cut": self.images_cut,
            "shards": shards,
            "arrays": arrays,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        feature_dim = int(value["feature_dim"])
        return cls(
            feature_dim=feature_dim,
            images=int(value["images"]),
            rows=int(value["rows"]),
            images_cut=int(value["images_cut"]),
            shards=tuple(
                ArrayFile(s["file"], "<f2", (int(s["rows"]), feature_dim), int(s["bytes"]), s["crc32"])
                for s in value["shards"]
            ),
            arrays={
                name: ArrayFile(a["file"], a["dtype"], tuple(a["shape"]), int(a["bytes"]), a["crc32"])
                for name, a in value["arrays"].items()
            },
            source=value["source"],
        )


class RegionStore:
    """Reads a region store. A *row* is the place of an image in the store, 0 to `len(store) - 1`.

    Opening reads `store.json` and looks at the sizes of the files, whatever the size of the features. Files are
    mapped when first used, and once more in every process that inherits or unpickles the object. What the methods
    return lies in the memory map: read-only, nothing copied or decoded but labels.

    Raises:
        DataError: there is no store at *path*, it is of a newer format, or one of its files is missing or cut.
        IndexError: (the methods that take a row) the row is not in the store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.manifest = _read_manifest(self.path)
        _check_sizes(self.path, self.manifest)
        self._first_rows = list(_first_rows(self.manifest))
        self._forget_handles()

    def _forget_handles(self) -> None:
        self._pid = os.getpid()
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._shards: dict[int, HalfArray] = {}
        self._row_of_id: dict[str, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest, "_first_rows": self._first_rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_handles()

    def __len__(self) -> int:
        """The number of images."""
        return self.manifest.images

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return self.manifest.feature_dim

    @property
    def num_rows(self) -> int:
        """The number of regions of all images together."""
        return self.manifest.rows

    @property
    def num_bytes(self) -> int:
        """The size of all arrays on disk, in bytes."""
        return sum(array.bytes for array in self.manifest.files)

    @property
    def ids_crc32(self) -> str:
        """Checksum of the image ids in their order: equal in stores whose rows mean the same images."""
        return self.manifest.arrays["ids"].crc32

    @property
    def source(self) -> dict[str, Any]:
        """How the store was made."""
        return self.manifest.source

    def image_id(self, row: int) -> str:
        """The id of the image in *row*."""
        self._check_row(row)
        return bytes(self._array("ids")[row]).decode()

    def image_ids(self) -> list[str]:
        """The ids of all images, in the order of the rows."""
        return [image_id.decode() for image_id in self._array("ids").tolist()]

    def has(self, image_id: str | int) -> bool:
        """Whether the store has an image of this id; COCO's long names and the bare number are one id."""
        return canonical_image_id(image_id) in self._rows_by_id()

    def row(self, image_id: str | int) -> int:
        """The row of an image.

        The first call builds a table of all ids, about 100 bytes an image; a training run needs rows only.

        Raises:
            DataError: the store has no such image.
        """
        row = self._rows_by_id().get(canonical_image_id(image_id))
        if row is None:
            raise DataError(f"image {image_id!r} is not in the region store {self.path}")
        return row

    def rows(self, image_ids: Sequence[str | int]) -> IntArray:
        """The rows of several images, (len(image_ids),) int64. Raises DataError at the first that is not there."""
        return np.fromiter((self.row(image_id) for image_id in image_ids), dtype=np.int64, count=len(image_ids))

    def num_regions(self, row: int) -> int:
        """The number of regions of the image in *row*."""
        first, last = self._span(row)
        return last - first

    def region_counts(self, rows: npt.NDArray[np.integer[Any]] | None = None) -> IntArray:
        """The numbers of regions of the images in *rows* (any shape; all images when None), int64, same shape."""
        offsets = self._array("offsets")
        if rows is None:
            return np.diff(offsets)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} in a store of {len(self)} images: {self.path}")
        counts: IntArray = offsets[rows + 1] - offsets[rows]
        return counts

    def features(self, row: int) -> HalfArray:
        """The features of the image in *row*, (n, D) float16, in the store's order."""
        first, last = self._span(row)
        shard = bisect.bisect_right(self._first_rows, first) - 1
        start = self._first_rows[shard]
        return self._shard(shard)[first - start : last - start]

    def boxes(self, row: int) -> FloatArray:
        """The boxes of the image in *row*, (n, 4) float32, x1 y1 x2 y2 in 0..1 of its width and height."""
        first, last = self._span(row)
        return self._array("boxes")[first:last]

    def scores(self, row: int) -> FloatArray | None:
        """The detector's confidences for the image in *row*, (n,) float32, descending; None when not stored."""
        first, last = self._span(row)
        return self._array("scores")[first:last] if "scores" in self.manifest.arrays else None

    def labels(self, row: int) -> list[str] | None:
        """The class names of the regions of the image in *row*; None when not stored."""
        first, last = self._span(row)
        if "labels" not in self.manifest.arrays:
            return None
        return [label.decode() for label in self._array("labels")[first:last].tolist()]

    def size(self, row: int) -> tuple[int, int] | None:
        """Width and height in pixels of the photo in *row*; None when not stored."""
        self._check_row(row)
        if "sizes" not in self.manifest.arrays:
            return None
        width, height = self._array("sizes")[row].tolist()
        return width, height

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.manifest.images:
            raise IndexError(f"row {row} in a store of {self.manifest.images} images: {self.path}")

    def _span(self, row: int) -> tuple[int, int]:
        self._check_row(row)
        offsets = self._array("offsets")
        return int(offsets[row]), int(offsets[row + 1])

    def _rows_by_id(self) -> dict[str, int]:
        if self._row_of_id is None:
            self._row_of_id = {image_id: row for row, image_id in enumerate(self.image_ids())}
        return self._row_of_id

    def _array(self, name: str) -> npt.NDArray[Any]:
        self._drop_inherited_handles()
        if name not in self._arrays:
            self._arrays[name] = _map(self.path, self.manifest.arrays[name])
        return self._arrays[name]

    def _shard(self, index: int) -> HalfArray:
        self._drop_inherited_handles()
        shard = self._shards.get(index)
        if shard is None:
            if len(self._shards) >= MAX_MAPPED_SHARDS:
                self._shards.pop(next(iter(self._shards)), None)
            shard = self._shards[index] = _map(self.path, self.manifest.shards[index])
        return shard

    def _drop_inherited_handles(self) -> None:
        """A forked child opens the files anew: parent and child share no file position and no descriptor."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._arrays = {}
            self._shards = {}


def verify(path: str | Path, progress: Callable[[int], object] | None = None) -> RegionStore:
    """Read every byte of the store at *path* and check all that the format promises.

    *progress* is called with the number of bytes checked since its last call, `RegionStore.num_bytes` in all.

    Raises:
        DataError: names the first bad file and, where there is one, the image.
    """
    store = RegionStore(path)
    report = progress or (lambda _: None)
    for array in store.manifest.arrays.values():
        _map(store.path, array)  # the header agrees with store.json
        report(array.header_bytes)
        crc = 0
        for chunk in _chunks(store.path, array):
            crc = zlib.crc32(chunk.data, crc)
            report(chunk.nbytes)
        _check_crc(store.path, array, crc)
    _verify_counts(store)
    _verify_boxes(store)
    _verify_ids(store)
    for shard, first_row in zip(store.manifest.shards, store._first_rows, strict=True):
        _map(store.path, shard)
        report(shard.header_bytes)
        _verify_shard(store, shard, first_row, report)
    return store


def half_not_finite(values: HalfArray) -> npt.NDArray[np.bool_]:
    """Where float16 *values* are NaN or infinite. On the bits: five times as fast as numpy's isfinite."""
    return (values.view(np.uint16) & np.uint16(0x7C00)) == np.uint16(0x7C00)


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        hint = " (an import of it was interrupted: run it again)" if partial_path(path).is_dir() else ""
        raise DataError(f"no region store at {path}: {file} not found{hint}") from None
    except ValueError as error:
        raise DataError(f"{file} is not readable as JSON: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT_NAME:
        raise DataError(f'{file} does not describe a region store: "format" should be "{FORMAT_NAME}"')
    version = value.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(
            f"{file}: format version {version} is newer than the version {FORMAT_VERSION} that is known here: "
            "upgrade xgpt_fairseq"
        )
    try:
        return Manifest.from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged: {type(error).__name__} {error}") from None


def partial_path(path: Path) -> Path:
    """Where a store is written before it appears under *path*."""
    return path.with_name(f".{path.name}.partial")


def _check_sizes(path: Path, manifest: Manifest) -> None:
    for array in manifest.files:
        file = path / array.file
        try:
            found = file.stat().st_size
        except FileNotFoundError:
            raise DataError(f"region store is incomplete: {file} is missing, {array.bytes} bytes expected") from None
        if found != array.bytes:
            raise DataError(f"region store is damaged: {file} has {found} bytes, {array.bytes} bytes expected")


def _first_rows(manifest: Manifest) -> Iterator[int]:
    first_row = 0
    for shard in manifest.shards:
        yield first_row
        first_row += shard.shape[0]


def _map(path: Path, array: ArrayFile) -> npt.NDArray[Any]:
    file = path / array.file
    try:
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}") from None
    if mapped.shape != array.shape or mapped.dtype != np.dtype(array.dtype):
        raise DataError(
            f"{file} holds {mapped.dtype} of shape {mapped.shape}; {path / MANIFEST} says {array.dtype} of shape "
            f"{array.shape}"
        )
    # The same mapping as a plain ndarray, whose indexing is several times as fast as np.memmap's.
    plain: npt.NDArray[Any] = mapped.view(np.ndarray)
    return plain


def _chunks(path: Path, array: ArrayFile) -> Iterator[npt.NDArray[np.uint8]]:
    """The array's bytes in pieces of whole rows. Read, not mapped: a bad disk is then an error and not a crash."""
    row_bytes = np.dtype(array.dtype).itemsize * math.prod(array.shape[1:])
    chunk_bytes = max(CHUNK_BYTES // row_bytes, 1) * row_bytes
    with open(path / array.file, "rb") as file:
        file.seek(array.header_bytes)
        while (chunk := np.fromfile(file, dtype=np.uint8, count=chunk_bytes)).size:
            yield chunk


def _check_crc(path: Path, array: ArrayFile, crc: int) -> None:
    if f"{crc:08x}" != array.crc32:
        raise DataError(f"{path / array.file} is damaged: checksum {crc:08x}, {array.crc32} expected")


def _verify_counts(store: RegionStore) -> None:
    manifest = store.manifest
    shapes = {
        "boxes": (manifest.rows, 4),
        "offsets": (manifest.images + 1,),
        "ids": (manifest.images,),
        "scores": (manifest.rows,),
        "labels": (manifest.rows,),
        "sizes": (manifest.images, 2),
    }
    for name, array in manifest.arrays.items():
        if array.shape != shapes[name]:
            raise DataError(f"{store.path / array.file} has shape {array.shape}, {shapes[name]} expected")
    file = store.path / manifest.arrays["offsets"].file
    offsets = store._array("offsets")
    if offsets[0] != 0 or offsets[-1] != manifest.rows:
        raise DataError(f"{file} goes from {offsets[0]} to {offsets[-1]}, 0 to {manifest.rows} expected")
    counts = store.region_counts()
    bad = (counts < 1) | (counts > MAX_REGIONS)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{file}: image {store.image_id(row)} has {counts[row]} regions, 1 to {MAX_REGIONS} allowed")
    if sum(shard.shape[0] for shard in manifest.shards) != manifest.rows:
        raise DataError(f"{store.path / MANIFEST}: the shards' rows do not add up to {manifest.rows}")
    split = ~np.isin(np.asarray(store._first_rows), offsets)
    if split.any():
        shard = manifest.shards[int(split.argmax())]
        raise DataError(f"{store.path / shard.file} begins in the middle of an image")


def _verify_boxes(store: RegionStore) -> None:
    file = store.path / store.manifest.arrays["boxes"].file
    boxes = store._array("boxes")
    step = CHUNK_BYTES // 16
    for start in range(0, len(boxes), step):
        x1, y1, x2, y2 = boxes[start : start + step].T
        # Written so that a NaN is bad too.
        bad = ~((x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= 1) & (y2 <= 1))
        if bad.any():
            index = start + int(bad.argmax())
            raise DataError(
                f"{file}: {_region_name(store, index)}: box {boxes[index].tolist()} is not x1 <= x2, y1 <= y2 in 0..1"
            )


def _verify_ids(store: RegionStore) -> None:
    ids = np.sort(store._array("ids"))
    same = ids[1:] == ids[:-1]
    if same.any():
        name = bytes(ids[int(same.argmax())]).decode()
        raise DataError(f"{store.path / store.manifest.arrays['ids'].file}: image {name} is there more than once")


def _verify_shard(store: RegionStore, shard: ArrayFile, first_row: int, report: Callable[[int], object]) -> None:
    crc = 0
    row = first_row
    bad_row: int | None = None
    for chunk in _chunks(store.path, shard):
        crc = zlib.crc32(chunk.data, crc)
        features = chunk.view(np.float16).reshape(-1, store.feature_dim)
        bad = half_not_finite(features)
        if bad_row is None and bad.any():
            bad_row = row + int(bad.any(axis=1).argmax())
        row += len(features)
        report(chunk.nbytes)
    _check_crc(store.path, shard, crc)
    if bad_row is not None:
        raise DataError(f"{store.path / shard.file}: {_region_name(store, bad_row)}: features are not finite")


def _region_name(store: RegionStore, index: int) -> str:
    """How an error names the region in row *index* of the features."""
    offsets = store._array("offsets")
    row = int(np.searchsorted(offsets, index, side="right")) - 1
    return f"image {store.image_id(row)}, region {index - int(offsets[row])}"
