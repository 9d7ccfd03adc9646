"""mmf-npy: region features of MMF and Pythia, two files per image.

Layout: facebookresearch/mmf, `mmf/datasets/databases/readers/feature_readers.py` and
`tools/scripts/features/extract_features_vmb.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives import safe_pickle
from xgpt_fairseq.archives.base import (
    BoxKind,
    IndexedRegionReader,
    Pending,
    Record,
    check_boxes,
    folders_in,
)
from xgpt_fairseq.errors import DataError, foreign_bytes
from xgpt_fairseq.io.arrays import load_array, read_header
from xgpt_fairseq.regions.validation import check_feature_shape

SUFFIX: Final = ".npy"
INFO: Final = "_info.npy"
FEATURE_KEY: Final = "features"  # where a zip lies under that name


@dataclass(frozen=True)
class PendingFiles:
    """One image: its two files."""

    features: Path

    def where(self) -> str:
        return str(self.features)

    def decode(self) -> Record:
        features = load_array(self.features, FEATURE_KEY)
        check_feature_shape(features, str(self.features))
        info = _info_of(self.features)
        return record_of(self.features.stem, features, load_dictionary(info), str(info))


class MmfNpyReader(IndexedRegionReader):
    """Positions count images, by folder and file name."""

    name: ClassVar[str] = "mmf-npy"
    layout: ClassVar[str] = "a folder, or folders in it, of {id}.npy and {id}_info.npy"
    box_kind: BoxKind = "pixel"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        for folder in folders_in(path):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(INFO) and (folder / f"{entry.name.removesuffix(INFO)}{SUFFIX}").is_file():
                        return f"per-image files in {folder} (such as {entry.name})"
        return None

    def __init__(self, path: Path) -> None:
        self.root = path
        self.names: list[str] = []
        for folder in folders_in(path):
            self.names += _names(folder, path)
        if not self.names:
            raise DataError(f"{path}: no files ({self.layout})")

    def find(self, name: str) -> Pending:
        return PendingFiles(self.root / name)


def _info_of(features: Path) -> Path:
    return features.with_name(f"{features.stem}{INFO}")


def _names(folder: Path, root: Path) -> list[str]:
    """The feature files in *folder*, sorted. Raises DataError if one of an image's two files is missing.

    A folder without any `_info.npy` does not belong to the archive.
    """
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.name.endswith(SUFFIX)}
    infos = {name for name in names if name.endswith(INFO)}
    if not infos:
        return []
    features = names - infos
    alone = {f"{name.removesuffix(INFO)}{SUFFIX}" for name in infos} ^ features
    if alone:
        first = min(alone)
        missing = folder / first if first not in features else _info_of(folder / first)
        raise DataError(f"{missing} is missing: each image needs a file of features and a file of boxes")
    return [(folder / name).relative_to(root).as_posix() for name in sorted(features)]


def load_dictionary(file: Path) -> dict[str, Any]:
    """The dictionary that `numpy.save` wrote to *file*, read with `safe_pickle`.

    Raises:
        DataError: the file is missing, or holds anything but a dictionary of plain values.
    """
    with foreign_bytes(file), open(file, "rb") as stream:
        shape, dtype = read_header(stream)
        pickled = stream.read()
    if not dtype.hasobject or shape != ():
        raise DataError(f"{file}: {dtype} of shape {shape}; a single dictionary expected")
    value = safe_pickle.loads(pickled, str(file))
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    if not isinstance(value, dict):
        raise DataError(f"{file}: it holds {type(value).__name__}; a dictionary expected")
    return value


def record_of(image_id: str, features: npt.NDArray[Any], info: dict[str, Any], where: str) -> Record:
    """The regions of an image, from its features and MMF's dictionary *info*.

    `num_boxes` is ignored, as in MMF's loader: it counts the regions above a threshold, or is a constant.

    Raises:
        DataError: names *where*, and says what is wrong.
    """
    boxes = array_in(info, "bbox", where)
    check_boxes(boxes, len(features), where)
    scores = info.get("cls_prob")
    if scores is not None:
        scores = array_in(info, "cls_prob", where)
        if len(scores) != len(features):
            raise DataError(f"{where}: cls_prob has the shape {scores.shape}; {len(features)} regions have features")
        if scores.ndim != 1:
            # Probabilities of all classes. The extractor does not sort by the largest (it excludes the classes for
            # which another region suppresses this one), so sorting by it would bring duplicates to the front.
            scores = None
    return Record(
        image_id,
        features,
        boxes,
        scores=scores,
        labels=_labels(info, len(features), where),
        size=size_in(info, "image_width", "image_height", where),
    )


def _labels(info: dict[str, Any], count: int, where: str) -> list[str] | None:
    if info.get("objects") is None:
        return None
    objects = array_in(info, "objects", where)
    # Pythia's extractor dropped the first region instead of class 0, so classes and regions cannot be matched.
    if objects.shape == (count - 1,):
        return None
    if objects.shape != (count,) or objects.dtype.kind not in "iu":
        raise DataError(
            f"{where}: objects are {objects.dtype} of shape {objects.shape}; {count} class numbers expected, one per "
            "region"
        )
    return [str(number) for number in objects.tolist()]


def array_in(info: dict[str, Any], key: str, where: str) -> npt.NDArray[Any]:
    """The array at *key*. Raises DataError if there is none."""
    value = info.get(key)
    if not isinstance(value, np.ndarray):
        found = "missing" if key not in info else f"{type(value).__name__}, not an array"
        raise DataError(f"{where}: {key} is {found}; found: {', '.join(map(str, info))}")
    return value


def size_in(info: dict[str, Any], width: str, height: str, where: str) -> tuple[int, int]:
    """Width and height in pixels at these keys. Raises DataError if they are missing or not numbers."""
    try:
        return int(info[width]), int(info[height])
    except (KeyError, TypeError, ValueError, OverflowError):
        shown = ", ".join(f"{key} {info.get(key)!r}"[:60] for key in (width, height))
        raise DataError(f"{where}: {shown}; two whole numbers expected") from None
