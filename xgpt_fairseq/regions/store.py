"""Reading a region store (`format`), memory-mapped."""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.format import (
    FloatArray,
    HalfArray,
    IntArray,
    check_sizes,
    map_array,
    read_manifest,
)
from xgpt_fairseq.regions.image_ids import canonical_image_id

# A mapped file holds a file descriptor, and a process usually may have 1024 of them.
MAX_MAPPED_SHARDS: Final = 512


class RegionStore:
    """Reads a region store. A *row* is the place of an image in the store, 0 to `len(store) - 1`.

    Opening reads `store.json` and looks at the sizes of the files, whatever the size of the features. Files are
    memory-mapped lazily, separately in each process. What the methods return lies in the memory map: read-only, nothing
    copied or decoded but labels.

    Raises:
        DataError: there is no store at *path*, it is of a newer format, or one of its files is missing or cut.
        IndexError: (the methods that take a row) the row is not in the store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.manifest = read_manifest(self.path)
        check_sizes(self.path, self.manifest)
        self._first_rows = self.manifest.first_rows
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
        return bytes(self.array("ids")[row]).decode()

    def image_ids(self) -> list[str]:
        """The ids of all images, in the order of the rows."""
        return [image_id.decode() for image_id in self.array("ids").tolist()]

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
        offsets = self.array("offsets")
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
        return self.array("boxes")[first:last]

    def scores(self, row: int) -> FloatArray | None:
        """The detector's confidences for the image in *row*, (n,) float32, descending; None when not stored."""
        first, last = self._span(row)
        return self.array("scores")[first:last] if "scores" in self.manifest.arrays else None

    def labels(self, row: int) -> list[str] | None:
        """The class names of the regions of the image in *row*; None when not stored."""
        first, last = self._span(row)
        if "labels" not in self.manifest.arrays:
            return None
        return [label.decode() for label in self.array("labels")[first:last].tolist()]

    def size(self, row: int) -> tuple[int, int] | None:
        """Width and height in pixels of the photo in *row*; None when not stored."""
        self._check_row(row)
        if "sizes" not in self.manifest.arrays:
            return None
        width, height = self.array("sizes")[row].tolist()
        return width, height

    def array(self, name: str) -> npt.NDArray[Any]:
        """The whole of one of the store's arrays but the features: boxes, offsets, ids … (`format`)."""
        self._drop_inherited_handles()
        if name not in self._arrays:
            self._arrays[name] = map_array(self.path, self.manifest.arrays[name])
        return self._arrays[name]

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.manifest.images:
            raise IndexError(f"row {row} in a store of {self.manifest.images} images: {self.path}")

    def _span(self, row: int) -> tuple[int, int]:
        self._check_row(row)
        offsets = self.array("offsets")
        return int(offsets[row]), int(offsets[row + 1])

    def _rows_by_id(self) -> dict[str, int]:
        if self._row_of_id is None:
            self._row_of_id = {image_id: row for row, image_id in enumerate(self.image_ids())}
        return self._row_of_id

    def _shard(self, index: int) -> HalfArray:
        self._drop_inherited_handles()
        shard = self._shards.get(index)
        if shard is None:
            if len(self._shards) >= MAX_MAPPED_SHARDS:
                self._shards.pop(next(iter(self._shards)), None)
            shard = self._shards[index] = map_array(self.path, self.manifest.shards[index])
        return shard

    def _drop_inherited_handles(self) -> None:
        """A forked child opens the files anew: parent and child share no file position and no descriptor."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._arrays = {}
            self._shards = {}
