"""Verifies a region store: every checksum, and all rules of the format."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.format import MANIFEST, ArrayFile, half_not_finite, map_array
from xgpt_fairseq.regions.limits import MAX_REGIONS
from xgpt_fairseq.regions.store import RegionStore

CHUNK_BYTES: Final = 1 << 24


def verify(path: str | Path, progress: Callable[[int], object] | None = None) -> RegionStore:
    """Read every byte of the store at *path* and check all rules of the format.

    *progress* is called with the number of bytes checked since its last call, `RegionStore.num_bytes` in total.

    Raises:
        DataError: names the first bad file and, if possible, the image.
    """
    store = RegionStore(path)
    report = progress or (lambda _: None)
    for array in store.manifest.arrays.values():
        map_array(store.path, array)  # the header agrees with store.json
        report(array.header_bytes)
        crc = 0
        for chunk in _chunks(store.path, array):
            crc = zlib.crc32(chunk.data, crc)
            report(chunk.nbytes)
        _check_crc(store.path, array, crc)
    _verify_counts(store)
    _verify_boxes(store)
    _verify_ids(store)
    for shard, first_region in zip(store.manifest.shards, store.manifest.first_regions, strict=True):
        map_array(store.path, shard)
        report(shard.header_bytes)
        _verify_shard(store, shard, first_region, report)
    return store


def _chunks(path: Path, array: ArrayFile) -> Iterator[npt.NDArray[np.uint8]]:
    """The array's bytes in chunks of whole rows. Read, not mapped, so that a bad disk is an error and not a crash."""
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
        "boxes": (manifest.num_regions, 4),
        "offsets": (manifest.images + 1,),
        "ids": (manifest.images,),
        "scores": (manifest.num_regions,),
        "labels": (manifest.num_regions,),
        "sizes": (manifest.images, 2),
        "folders": (manifest.images,),
    }
    for name, array in manifest.arrays.items():
        if array.shape != shapes[name]:
            raise DataError(f"{store.path / array.file} has shape {array.shape}, {shapes[name]} expected")
    file = store.path / manifest.arrays["offsets"].file
    offsets = store.array("offsets")
    if offsets[0] != 0 or offsets[-1] != manifest.num_regions:
        raise DataError(f"{file} goes from {offsets[0]} to {offsets[-1]}, 0 to {manifest.num_regions} expected")
    counts = np.diff(offsets)
    bad = (counts < 1) | (counts > MAX_REGIONS)
    if bad.any():
        image_index = int(bad.argmax())
        image_id, count = store.image_id(image_index), counts[image_index]
        raise DataError(f"{file}: image {image_id} has {count} regions, 1 to {MAX_REGIONS} allowed")
    if sum(shard.shape[0] for shard in manifest.shards) != manifest.num_regions:
        raise DataError(f"{store.path / MANIFEST}: the shards' rows do not add up to {manifest.num_regions}")
    split = ~np.isin(np.asarray(store.manifest.first_regions), offsets)
    if split.any():
        shard = manifest.shards[int(split.argmax())]
        raise DataError(f"{store.path / shard.file} begins in the middle of an image")


def _verify_boxes(store: RegionStore) -> None:
    file = store.path / store.manifest.arrays["boxes"].file
    boxes = store.array("boxes")
    step = CHUNK_BYTES // 16
    for start in range(0, len(boxes), step):
        x1, y1, x2, y2 = boxes[start : start + step].T
        # Written so that NaN is bad, too.
        bad = ~((x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= 1) & (y2 <= 1))
        if bad.any():
            index = start + int(bad.argmax())
            raise DataError(
                f"{file}: {_region_name(store, index)}: box {boxes[index].tolist()} is not x1 <= x2, y1 <= y2 in 0..1"
            )


def _verify_ids(store: RegionStore) -> None:
    if not all(store.image_ids()):
        raise DataError(f"{store.path / store.manifest.arrays['ids'].file}: an image has an empty id")
    ids = np.sort(store.array("ids"))
    same = ids[1:] == ids[:-1]
    if same.any():
        name = bytes(ids[int(same.argmax())]).decode()
        raise DataError(f"{store.path / store.manifest.arrays['ids'].file}: image {name} occurs more than once")


def _verify_shard(store: RegionStore, shard: ArrayFile, first_region: int, report: Callable[[int], object]) -> None:
    crc = 0
    region = first_region
    bad_region: int | None = None
    for chunk in _chunks(store.path, shard):
        crc = zlib.crc32(chunk.data, crc)
        features = chunk.view(np.float16).reshape(-1, store.feature_dim)
        bad = half_not_finite(features)
        if bad_region is None and bad.any():
            bad_region = region + int(bad.any(axis=1).argmax())
        region += len(features)
        report(chunk.nbytes)
    _check_crc(store.path, shard, crc)
    if bad_region is not None:
        raise DataError(f"{store.path / shard.file}: {_region_name(store, bad_region)}: features are not finite")


def _region_name(store: RegionStore, region: int) -> str:
    """How an error names one of all regions."""
    offsets = store.array("offsets")
    image_index = int(np.searchsorted(offsets, region, side="right")) - 1
    return f"image {store.image_id(image_index)}, region {region - int(offsets[image_index])}"
