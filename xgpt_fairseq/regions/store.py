"""Reading a region store (`format`), memory-mapped."""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import logging
import os
import resource
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.arrays import check_not_cut, read_ahead
from xgpt_fairseq.regions.format import (
    FloatArray,
    HalfArray,
    IntArray,
    check_sizes,
    map_array,
    read_manifest,
)
from xgpt_fairseq.regions.limits import NO_BOXES
from xgpt_fairseq.regions.names import ImageNames, extracted_folder

# A mapped file takes a file descriptor. So many are left to the rest of the process.
RESERVED_FILES: Final = 512

logger = logging.getLogger(__name__)


class RegionStore:
    """Reads a region store. An *image index* is the position of an image in the store, 0 to `len(store) - 1`.

    Opening only reads `store.json` and checks the sizes of the files. Files are memory-mapped lazily, separately in
    each process. The methods return read-only views of the memory map; only labels are copied and decoded.

    Raises:
        DataError: there is no store at *path*, it has a newer format version, or a file is missing or truncated.
        IndexError: (methods that take an image index) the index is not in the store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.manifest = read_manifest(self.path)
        check_sizes(self.path, self.manifest)
        self._first_regions = self.manifest.first_regions
        self._forget_handles()

    def _forget_handles(self) -> None:
        self._pid = os.getpid()
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._shards: dict[int, HalfArray] = {}
        self._names: ImageNames | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest, "_first_regions": self._first_regions}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_handles()

    def close(self) -> None:
        """Close the store's files, which are opened again where they are needed."""
        self._forget_handles()

    def __len__(self) -> int:
        """The number of images."""
        return self.manifest.images

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return self.manifest.feature_dim

    @property
    def num_regions(self) -> int:
        """The total number of regions."""
        return self.manifest.num_regions

    @property
    def num_bytes(self) -> int:
        """The size of all arrays on disk, in bytes."""
        return sum(array.bytes for array in self.manifest.files)

    @property
    def ids_crc32(self) -> str:
        """Checksum of the image ids in order: equal for stores with the same images at the same indices."""
        return self.manifest.arrays["ids"].crc32

    @property
    def sha256(self) -> str:
        """What tells the store from any other, features included: from its checksums; no array is read."""
        checksums = " ".join(array.crc32 for array in self.manifest.files)
        return hashlib.sha256(checksums.encode()).hexdigest()

    @property
    def source(self) -> dict[str, Any]:
        """How the store was made."""
        return self.manifest.source

    @property
    def has_boxes(self) -> bool:
        """Whether regions have boxes of their own, and not all that of the whole image."""
        return self.source.get("boxes") != NO_BOXES

    def image_id(self, image_index: int) -> str:
        """The id of image *image_index*."""
        self._check_index(image_index)
        return self._text("ids", bytes(self.array("ids")[image_index]))

    def image_ids(self) -> list[str]:
        """The ids of all images, in order."""
        return [self._text("ids", image_id) for image_id in self.array("ids").tolist()]

    def has(self, image_id: str | int) -> bool:
        """Whether the store has an image of this id or file name (see `image_index`)."""
        return bool(self._find_any(image_id))

    @property
    def names(self) -> ImageNames:
        """The table of all names, about 110 bytes per image; a training run needs image indices only."""
        if self._names is None:
            of_photos = self.source.get("format") == "photos"
            self._names = ImageNames(
                self.image_ids(),
                where=str(self.path),
                folders=self._folders() if "folders" in self.manifest.arrays else None,
                extracted=extracted_folder(str(self.source.get("path", ""))) if of_photos else None,
            )
        return self._names

    def _folders(self) -> list[str]:
        """The folder of each photo; photos of one folder share the text."""
        texts: dict[bytes, str] = {}
        stored = self.array("folders").tolist()
        return [
            texts[folder] if folder in texts else texts.setdefault(folder, self._text("folders", folder))
            for folder in stored
        ]

    def find(self, name: str | int) -> list[int]:
        """The places of the images that a name may mean (see `ImageNames.find`)."""
        return self.names.find(name)

    def find_id(self, image_id: str) -> list[int]:
        """The places of the images that an id, as `canonical_image_id` makes it, may mean."""
        return self.names.find_id(image_id)

    def _find_any(self, image_id: str | int) -> list[int]:
        return self.find_id(str(image_id)) or self.find(image_id)

    @property
    def folders(self) -> frozenset[str]:
        """The folders that photos of the store lie in (see `ImageNames.folders`)."""
        return self.names.folders

    def folder_parts(self, image_index: int) -> tuple[str, ...]:
        """The folders of photo *image_index*, the outermost first (see `ImageNames.folder_parts`)."""
        self._check_index(image_index)
        return self.names.folder_parts(image_index)

    def shares_name(self, image_id: str | None = None) -> bool:
        """Whether photos of different folders share a name; or this one, an id without folders."""
        return self.names.shares_name(image_id)

    def image_index(self, image_id: str | int) -> int:
        """The place of an image, by its id or else by its file's name (see `find`).

        Raises:
            DataError: the store has no such image, or several images of this name in different folders.
        """
        found = self._find_any(image_id)
        if not found:
            raise DataError(f"image {image_id!r} is not in the region store {self.path}")
        if len(found) > 1:
            raise DataError(
                f"image {image_id!r} may be {self.image_id(found[0])} or {self.image_id(found[1])} of the region store "
                f"{self.path}: name its folder, too"
            )
        return found[0]

    def image_indices(self, image_ids: Sequence[str | int]) -> IntArray:
        """The indices of several images, (len(image_ids),) int64. Raises DataError for the first that is missing."""
        return np.fromiter((self.image_index(image_id) for image_id in image_ids), dtype=np.int64, count=len(image_ids))

    def region_count(self, image_index: int) -> int:
        """The number of regions of image *image_index*."""
        first, last = self._span(image_index)
        return last - first

    def region_counts(self, image_indices: npt.NDArray[np.integer[Any]] | None = None) -> IntArray:
        """The numbers of regions of the images *image_indices* (any shape; None: all images), int64, same shape."""
        offsets = self.array("offsets")
        if image_indices is None:
            return self._checked(np.diff(offsets))
        if image_indices.size and not (image_indices.min() >= 0 and image_indices.max() < len(self)):
            lowest, highest = image_indices.min(), image_indices.max()
            raise IndexError(f"images {lowest} to {highest} in a store of {len(self)} images: {self.path}")
        return self._checked(offsets[image_indices + 1] - offsets[image_indices])

    def _checked(self, counts: IntArray) -> IntArray:
        if counts.size and not (counts.min() >= 1 and counts.max() <= self.num_regions):
            raise self._damaged_offsets(f"images have {counts.min()} to {counts.max()} regions")
        return counts

    def features(self, image_index: int) -> HalfArray:
        """The features of image *image_index*, (n, D) float16, in the store's order."""
        shard, first, last = self._place(*self._span(image_index))
        features = shard[first:last]
        if len(features) != last - first:
            raise self._damaged_offsets(f"image {image_index} has regions in two files of features")
        return features

    def _place(self, first: int, last: int) -> tuple[HalfArray, int, int]:
        """The file of features that has the store's region *first*, and there the places of regions *first*, *last*."""
        shard = bisect.bisect_right(self._first_regions, first) - 1
        start = self._first_regions[shard]
        return self._shard(shard), first - start, last - start

    def prefetch(self, image_indices: Iterable[int]) -> None:
        """Have the system read the features and boxes of several images at once, before they are looked at.

        One after the other, images that are not in memory are read page fault by page fault: where the store is on
        another machine, most of the time is waiting. Those in memory take some 20 µs each.
        """
        boxes = self.array("boxes")
        for image_index in image_indices:
            first, last = self._span(image_index)
            read_ahead(*self._place(first, last))
            read_ahead(boxes, first, last)

    def ahead(self, image_indices: Iterable[int], at_once: int = 32) -> Iterator[int]:
        """The same indices, each *at_once* of them asked for (`prefetch`) before the first: for one image at a time."""
        rest = iter(image_indices)
        while chunk := list(itertools.islice(rest, at_once)):
            self.prefetch(chunk)
            yield from chunk

    def boxes(self, image_index: int) -> FloatArray:
        """The boxes of image *image_index*, (n, 4) float32, x1 y1 x2 y2 in 0..1 of its width and height."""
        first, last = self._span(image_index)
        return self.array("boxes")[first:last]

    def scores(self, image_index: int) -> FloatArray | None:
        """The detector's confidences for image *image_index*, (n,) float32, descending; None if not stored."""
        first, last = self._span(image_index)
        return self.array("scores")[first:last] if "scores" in self.manifest.arrays else None

    def labels(self, image_index: int) -> list[str] | None:
        """The class names of the regions of image *image_index*; None if not stored."""
        first, last = self._span(image_index)
        if "labels" not in self.manifest.arrays:
            return None
        return [self._text("labels", label) for label in self.array("labels")[first:last].tolist()]

    def _text(self, name: str, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path / self.manifest.arrays[name].file} is damaged: {error}") from None

    def size(self, image_index: int) -> tuple[int, int] | None:
        """Width and height in pixels of photo *image_index*; None if not stored."""
        self._check_index(image_index)
        if "sizes" not in self.manifest.arrays:
            return None
        width, height = self.array("sizes")[image_index].tolist()
        return width, height

    def array(self, name: str) -> npt.NDArray[Any]:
        """One of the store's arrays other than the features: boxes, offsets, ids … (see `format`)."""
        self._drop_inherited_handles()
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = map_array(self.path, self.manifest.arrays[name])
        check_not_cut(array, self.path, self.manifest.arrays[name].file)
        return array

    def _check_index(self, image_index: int) -> None:
        if not 0 <= image_index < self.manifest.images:
            raise IndexError(f"image {image_index} in a store of {self.manifest.images} images: {self.path}")

    def _span(self, image_index: int) -> tuple[int, int]:
        self._check_index(image_index)
        offsets = self.array("offsets")
        first, last = int(offsets[image_index]), int(offsets[image_index + 1])
        if not 0 <= first < last <= self.manifest.num_regions:
            raise self._damaged_offsets(f"image {image_index} has the regions {first} to {last}")
        return first, last

    def _damaged_offsets(self, found: str) -> DataError:
        file = self.path / self.manifest.arrays["offsets"].file
        return DataError(f"{file} is damaged: {found}, of {self.num_regions} (xgpt-regions verify checks a store)")

    def _shard(self, index: int) -> HalfArray:
        self._drop_inherited_handles()
        shard = self._shards.get(index)
        if shard is None:
            if len(self._shards) >= self._most_mapped:
                self._shards.pop(next(iter(self._shards)), None)  # the one that was not used for longest
            shard = self._shards[index] = map_array(self.path, self.manifest.shards[index])
        elif self._most_mapped < len(self.manifest.shards):
            self._shards[index] = self._shards.pop(index, shard)  # threads may do so at once
        check_not_cut(shard, self.path, self.manifest.shards[index].file)
        return shard

    @cached_property
    def _most_mapped(self) -> int:
        """How many files of features are mapped at once: all, where the system allows so many open files."""
        wanted = len(self.manifest.shards)
        others = _open_files() + RESERVED_FILES
        most = _allow_open_files(wanted + others) - others
        if most < wanted:
            logger.warning(
                f"{self.path} has {wanted} files of features, of which {max(most, 1)} are open at once: the system "
                f"allows {most + others} open files. If reading is slow, raise that (ulimit -n)"
            )
        return max(min(most, wanted), 1)

    def _drop_inherited_handles(self) -> None:
        """Let a forked child reopen the files, so that parent and child share no file position and no descriptor."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._arrays = {}
            self._shards = {}


def _open_files() -> int:
    """How many files this process has open, as far as the system says it."""
    try:
        return len(list(Path("/dev/fd").iterdir()))
    except OSError:
        return 0


def _allow_open_files(wanted: int) -> int:
    """Raise this process's limit of open files to *wanted*, as far as the system lets a user; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # a system may have a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return wanted if soft == resource.RLIM_INFINITY else soft
