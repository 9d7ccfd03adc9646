"""The format of region stores: region features, boxes and image ids on disk.

A store is a folder of plain `.npy` files and one `store.json`:

    store.json           format version, counts, sizes and checksums of the files, how the store was made
    features-00000.npy   (regions, D) float16; the regions of an image are adjacent and in one shard
    boxes.npy            (regions, 4) float32, x1 y1 x2 y2 in 0..1 of the image's width and height
    offsets.npy          (images + 1,) int64; image i has the regions offsets[i] to offsets[i + 1]
    ids.npy              (images,) fixed-width bytes: the image ids (see `canonical_image_id`), UTF-8
    scores.npy           optional (regions,) float32, the detector's confidence, descending within an image
    labels.npy           optional (regions,) fixed-width bytes: class names, UTF-8
    sizes.npy            optional (images, 2) int32, width and height of the photo in pixels
    folders.npy          optional (images,) fixed-width bytes: the folder of the photo below what was extracted, UTF-8;
                         where an id of one part does not say that its photo lies in one

Checksums are the crc32 of an array's bytes without the `.npy` header.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError, reason_of
from xgpt_fairseq.io import arrays
from xgpt_fairseq.io.json_files import parse_json
from xgpt_fairseq.io.resumable import partial_path

FORMAT_NAME: Final = "xgpt_fairseq region store"
FORMAT_VERSION: Final = 1
MANIFEST: Final = "store.json"

FloatArray = npt.NDArray[np.float32]
HalfArray = npt.NDArray[np.float16]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArrayFile:
    """Description of a store's `.npy` file. `bytes` is the size of the whole file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    crc32: str

    @classmethod
    def checked(cls, file: Any, dtype: Any, shape: tuple[int, ...], size: Any, crc32: Any) -> Self:
        """Raises TypeError or ValueError where a value is of another type, or an array has a negative size."""
        array = cls(file, dtype, shape, int(size), crc32)
        if not all(isinstance(text, str) for text in (file, dtype, crc32)) or not file or "\0" in file:
            raise ValueError(f"{file!r:.60}, {dtype!r:.60}, {crc32!r:.60}")
        if min((*shape, array.header_bytes)) < 0:
            raise ValueError(f"{file}: {array.bytes} bytes for {dtype} of shape {shape}")
        return array

    @property
    def header_bytes(self) -> int:
        return self.bytes - math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Manifest:
    """The contents of `store.json`, which calls regions `rows`, and truncated images `images_cut`."""

    feature_dim: int
    images: int
    num_regions: int
    truncated_images: int
    shards: tuple[ArrayFile, ...]
    arrays: dict[str, ArrayFile]
    source: dict[str, Any]

    @property
    def files(self) -> tuple[ArrayFile, ...]:
        return (*self.arrays.values(), *self.shards)

    @property
    def first_regions(self) -> list[int]:
        """The first region of each shard."""
        return list(accumulate((shard.shape[0] for shard in self.shards), initial=0))[:-1]

    def to_json(self) -> dict[str, Any]:
        shards = [
            {
                "file": shard.file,
                "first_row": first_region,
                "rows": shard.shape[0],
                "bytes": shard.bytes,
                "crc32": shard.crc32,
            }
            for shard, first_region in zip(self.shards, self.first_regions, strict=True)
        ]
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
            "rows": self.num_regions,
            "images_cut": self.truncated_images,
            "shards": shards,
            "arrays": arrays,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        """Raises KeyError, TypeError or ValueError where a value is missing or impossible."""
        feature_dim = int(value["feature_dim"])
        return cls(
            feature_dim=feature_dim,
            images=int(value["images"]),
            num_regions=int(value["rows"]),
            truncated_images=int(value["images_cut"]),
            shards=tuple(
                ArrayFile.checked(s["file"], "<f2", (int(s["rows"]), feature_dim), s["bytes"], s["crc32"])
                for s in value["shards"]
            ),
            arrays={
                name: ArrayFile.checked(a["file"], a["dtype"], tuple(map(int, a["shape"])), a["bytes"], a["crc32"])
                for name, a in value["arrays"].items()
            },
            source=dict(value["source"]),
        )


def read_manifest(path: Path) -> Manifest:
    """Read `store.json` of the store at *path*.

    Raises:
        DataError: there is no store, it has a newer format version, or `store.json` is damaged.
    """
    file = path / MANIFEST
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        hint = " (an import of it was interrupted: run it again)" if partial_path(path).is_dir() else ""
        raise DataError(f"no region store at {path}: {file} not found{hint}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {reason_of(error)}") from None
    value = parse_json(content, file)
    if not isinstance(value, dict) or value.get("format") != FORMAT_NAME:
        raise DataError(f'{file} does not describe a region store: "format" should be "{FORMAT_NAME}"')
    version = value.get("version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(
            f"{file} has format version {version}, this xgpt_fairseq reads versions up to {FORMAT_VERSION}: upgrade it"
        )
    try:
        return Manifest.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{file} is damaged: {type(error).__name__} {error}") from None


def check_sizes(path: Path, manifest: Manifest) -> None:
    """Raise DataError if a file of the store is missing or its size is not that of `store.json`."""
    for array in manifest.files:
        file = path / array.file
        try:
            found = file.stat().st_size
        except FileNotFoundError:
            raise DataError(f"region store is incomplete: {file} is missing, {array.bytes} bytes expected") from None
        except (OSError, ValueError) as error:  # no name that a file can have; no permission
            raise DataError(f"region store is damaged: {str(file)[:200]}: {reason_of(error)}") from None
        if found != array.bytes:
            raise DataError(f"region store is damaged: {file} has {found} bytes, {array.bytes} bytes expected")


def map_array(path: Path, array: ArrayFile) -> npt.NDArray[Any]:
    """Memory-map an array of the store at *path*. Raises DataError if its header does not match `store.json`."""
    file = path / array.file
    mapped = arrays.map_array(file)
    if mapped.shape != array.shape or mapped.dtype != np.dtype(array.dtype):
        raise DataError(
            f"{file} holds {mapped.dtype} of shape {mapped.shape}; {path / MANIFEST} says {array.dtype} of shape "
            f"{array.shape}"
        )
    return mapped


def half_not_finite(values: HalfArray) -> npt.NDArray[np.bool_]:
    """Where float16 *values* are NaN or infinite. Tests the bits, five times as fast as numpy's isfinite."""
    return (values.view(np.uint16) & np.uint16(0x7C00)) == np.uint16(0x7C00)
