"""npz-dir: a file of features and a file of boxes per image, as in self-critical.pytorch and AoANet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives.base import BoxKind, IndexedRegionReader, Pending, Record, check_boxes
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.arrays import load_array
from xgpt_fairseq.regions.validation import check_feature_shape

FEATURE_KEY = "feat"
SUFFIXES = (".npz", ".npy")
WHOLE_IMAGE = np.array([0, 0, 1, 1], dtype=np.float32)


@dataclass(frozen=True)
class PendingFiles:
    """One image: its two files, or that of the features alone."""

    features: Path
    boxes: Path | None

    def where(self) -> str:
        return str(self.features)

    def decode(self) -> Record:
        features = load_array(self.features, FEATURE_KEY)
        if self.boxes is None:
            features = _in_rows(features, str(self.features))
            return Record(self.features.stem, features, np.tile(WHOLE_IMAGE, (len(features), 1)))
        check_feature_shape(features, str(self.features))
        boxes = load_array(self.boxes, FEATURE_KEY)
        check_boxes(boxes, len(features), str(self.boxes))
        return Record(self.features.stem, features, boxes)


class NpzDirReader(IndexedRegionReader):
    """`att/{id}.npz` (key `feat`) or `att/{id}.npy`, and `box/{id}.npy`. Positions count images, by file name."""

    name: ClassVar[str] = "npz-dir"
    layout: ClassVar[str] = "folders att and box (or NAME_att and NAME_box) with a file per image"
    box_kind: BoxKind = "unknown"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        folders = _find_folders(path)
        if folders is None:
            return None
        features, boxes = folders
        with os.scandir(features) as entries:
            first = next((entry.name for entry in entries if entry.name.endswith(SUFFIXES)), None)
        return None if first is None else f"per-image files in {features} (such as {first}) and {boxes}"

    def __init__(self, path: Path) -> None:
        folders = _find_folders(path)
        if folders is None:
            raise DataError(f"{path}: no {self.layout} found; exactly one such pair is needed")
        self.features, self.boxes = folders
        with os.scandir(self.features) as entries:
            self.names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIXES))
        if not self.names:
            raise DataError(f"{self.features}: no .npz or .npy files")

    def find(self, name: str) -> Pending:
        file = self.features / name
        return PendingFiles(file, self.boxes / f"{file.stem}.npy")

    def about(self) -> dict[str, Any]:
        return {"features": self.features.name, "boxes": self.boxes.name}


class FeaturesAloneReader(IndexedRegionReader):
    """`att/{id}.npz` or `att/{id}.npy` without boxes: regions, or the cells of a grid. Every box is the whole image."""

    name: ClassVar[str] = NpzDirReader.name
    layout: ClassVar[str] = "a folder (att, or NAME_att) with a file of features per image, without boxes"
    box_kind: BoxKind = "normalised"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        folder = _find_features(path)
        return (
            None if folder is None else f"per-image files in {folder} (such as {_feature_files(folder)[0]}), no boxes"
        )

    def __init__(self, path: Path) -> None:
        folder = _find_features(path)
        if folder is None:
            raise DataError(f"{path}: not {self.layout}")
        self.features = folder
        self.names = sorted(_feature_files(folder))

    def find(self, name: str) -> Pending:
        return PendingFiles(self.features / name, None)

    def about(self) -> dict[str, Any]:
        return {"features": self.features.name}


def _find_features(path: Path) -> Path | None:
    """The folder of features that *path* means; None where there is none, or more than one.

    *path* is the folder itself, or holds it as `att`, or is what comes before `_att`.
    """
    path = path.absolute()  # `.` has no name
    candidates = [path, path / "att", path.with_name(f"{path.name}_att")]
    found = [folder for folder in candidates if folder.is_dir() and _feature_files(folder)]
    return found[0] if len(found) == 1 else None


def _feature_files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name.endswith(SUFFIXES)]


def _in_rows(features: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Features (regions, D), or of a grid (N, N, D), as (regions, D)."""
    if features.ndim == 3 and features.shape[0] == features.shape[1]:
        features = features.reshape(-1, features.shape[2])
    check_feature_shape(features, where)
    return features


def _find_folders(path: Path) -> tuple[Path, Path] | None:
    """The folders of features and boxes at *path*; None if there is no pair, or more than one.

    *path* is the folder that contains both, or the feature folder `NAME_att`, or its path without `_att`.
    """
    path = path.absolute()  # `.` has no name
    candidates = [
        (path / "att", path / "box"),
        (path.with_name(f"{path.name}_att"), path.with_name(f"{path.name}_box")),
    ]
    if path.name.endswith("_att"):
        candidates.append((path, path.with_name(f"{path.name.removesuffix('_att')}_box")))
    if path.is_dir():
        candidates += [(att, att.with_name(f"{att.name.removesuffix('_att')}_box")) for att in path.glob("*_att")]
    pairs = [(features, boxes) for features, boxes in candidates if features.is_dir() and boxes.is_dir()]
    return pairs[0] if len(pairs) == 1 else None
