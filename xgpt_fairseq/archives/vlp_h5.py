"""vlp-h5: region features of Unified VLP in HDF5 files, one array per image, split by the name's last three digits.

Layout: LuoweiZhou/VLP, `vlp/seq2seq_loader.py`, and LuoweiZhou/detectron-vlp, `tools/extract_features.py` and
`tools/merge_bbox.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from xgpt_fairseq.archives.base import (
    BoxKind,
    Pending,
    Record,
    RegionReader,
    check_boxes,
    folders_in,
    names_digest,
)
from xgpt_fairseq.archives.handle_cache import close_cached
from xgpt_fairseq.archives.hdf5 import array_count, array_names, is_hdf5, read_array
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.validation import check_feature_shape

# The extractor's files: features, class probabilities, boxes.
PART: Final = re.compile(r".+_(feat|cls|bbox)(\d{3})\.h5")
# x1 y1 x2 y2, class, confidence
BOX_COLUMNS: Final = 6


@dataclass(frozen=True)
class PendingArrays:
    """One image: an array of the same name in two files."""

    features: Path
    boxes: Path
    image_id: str

    def where(self) -> str:
        return f"{self.features}, array {self.image_id}"

    def decode(self) -> Record:
        features = read_array(self.features, self.image_id)
        boxes = read_array(self.boxes, self.image_id)
        if features.ndim == 1:  # the extractor squeezes the array, even if there is only one region
            features = features[None]
        check_feature_shape(features, self.where())
        if boxes.ndim != 2 or boxes.shape[1] != BOX_COLUMNS:
            raise DataError(
                f"{self.boxes}, array {self.image_id}: shape {boxes.shape}; ({len(features)}, {BOX_COLUMNS}) expected: "
                "x1 y1 x2 y2, class, confidence"
            )
        check_boxes(boxes[:, :4], len(features), f"{self.boxes}, array {self.image_id}")
        if not np.isfinite(boxes[:, 4]).all():
            raise DataError(f"{self.boxes}, array {self.image_id}: a class is not finite")
        record = Record(self.image_id, features, boxes[:, :4])
        return replace(record, labels=[str(int(number)) for number in boxes[:, 4]], scores=boxes[:, 5])


class VlpH5Reader(RegionReader):
    """Positions count images: files by folder and name, arrays of a file by name."""

    name: ClassVar[str] = "vlp-h5"
    layout: ClassVar[str] = "a folder of *_feat000.h5 … *_feat999.h5 and an HDF5 file of boxes"
    unit: ClassVar[str] = "image"
    box_kind: BoxKind = "pixel"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        features = _parts(path).get("feat")
        return f"{len(features)} HDF5 file(s) of features (such as {features[0].name})" if features else None

    def __init__(self, path: Path) -> None:
        parts = _parts(path)
        self.files = parts.get("feat", [])
        if not self.files:
            raise DataError(f"{path}: no *_feat000.h5 or the like in it or its folders ({self.layout})")
        self.boxes = _boxes_of(path, self.files, parts.get("bbox", []))
        self.counts = [array_count(file) for file in self.files]
        self.end = sum(self.counts)

    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        start = 0
        for file, boxes, count in zip(self.files, self.boxes, self.counts, strict=True):
            if position < start + count:
                first = max(position - start, 0)
                for index, name in enumerate(array_names(file)[first:], start + first):
                    yield PendingArrays(file, boxes, name), index + 1
            start += count

    def describe(self) -> dict[str, Any]:
        files = {file: file.stat().st_size for file in [*self.files, *self.boxes]}
        digest = names_digest(f"{file.parent.name}/{file.name} {size}" for file, size in files.items())
        return {"format": self.name, "files": len(files), "images": self.end, "names_and_sizes_sha256": digest}

    def close(self) -> None:
        close_cached()


def _parts(path: Path) -> dict[str, list[Path]]:
    """The extractor's files in *path* and its subfolders, by their contents."""
    parts: dict[str, list[Path]] = {}
    for folder in folders_in(path):
        for file in sorted(folder.glob("*.h5")):
            if match := PART.fullmatch(file.name):
                parts.setdefault(match[1], []).append(file)
    return parts


def _boxes_of(path: Path, features: list[Path], parts: list[Path]) -> list[Path]:
    """The box file of each feature file: a single file, into which VLP merges them, or one for each."""
    others = [file for folder in folders_in(path) for file in sorted(folder.glob("*.h5")) if is_hdf5(file)]
    merged = [file for file in others if not PART.fullmatch(file.name)]
    if len(merged) == 1:
        return merged * len(features)
    if merged:
        raise DataError(
            f"{path}: more than one file that could hold the boxes: {', '.join(file.name for file in merged)}; only "
            "one HDF5 file beside *_feat*.h5 and *_cls*.h5 is expected"
        )
    by_digits = {_digits(file): file for file in parts}
    if len(by_digits) < len(parts):
        raise DataError(f"{path}: more than one *_bbox*.h5 of the same number")
    missing = [file.name for file in features if _digits(file) not in by_digits]
    if missing:
        raise DataError(
            f"{path}: no HDF5 file of boxes for {missing[0]}: neither one for all images nor *_bbox{missing[0][-6:]}"
        )
    return [by_digits[_digits(file)] for file in features]


def _digits(file: Path) -> str:
    return file.stem[-3:]
