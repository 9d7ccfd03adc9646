"""m2-h5: region features of Meshed-Memory Transformer, all in one HDF5 file with a few arrays per image.

Layout: aimagelab/meshed-memory-transformer, `data/field.py`; `{id}_size`: luo3300612/image-captioning-DLCT.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives.base import BoxKind, IndexedRegionReader, Pending, Record, check_boxes
from xgpt_fairseq.archives.handle_cache import close_cached
from xgpt_fairseq.archives.hdf5 import array_names, find_array, is_hdf5, read_array
from xgpt_fairseq.archives.mmf_npy import size_in
from xgpt_fairseq.archives.vlp_h5 import PART, VlpH5Reader
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.validation import check_feature_shape

FEATURES: Final = "_features"


@dataclass(frozen=True)
class PendingArrays:
    """One image: the arrays whose names begin with its id."""

    file: Path
    image_id: str

    def where(self) -> str:
        return f"{self.file}, image {self.image_id}"

    def decode(self) -> Record:
        features = read_array(self.file, f"{self.image_id}{FEATURES}")
        boxes = read_array(self.file, f"{self.image_id}_boxes")
        check_feature_shape(features, self.where())
        check_boxes(boxes, len(features), self.where())
        scores = find_array(self.file, f"{self.image_id}_cls_prob")
        size = find_array(self.file, f"{self.image_id}_size")
        return Record(
            self.image_id,
            features,
            boxes,
            scores=None if scores is None else self._scores(scores, len(features)),
            size=None if size is None else self._size(size),
        )

    def _scores(self, probabilities: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        """A confidence per region: as it is, or the largest probability of an object class (class 0 is background)."""
        if probabilities.ndim == 2 and probabilities.shape[1] > 1 and len(probabilities) == count:
            return np.asarray(probabilities[:, 1:].max(axis=1))
        if probabilities.shape == (count,):
            return probabilities
        raise DataError(
            f"{self.where()}: cls_prob has the shape {probabilities.shape}; ({count}, classes) or ({count},) expected"
        )

    def _size(self, size: npt.NDArray[Any]) -> tuple[int, int]:
        """Width and height, from the archive's height and width."""
        if size.size != 2 or size.dtype.kind not in "iuf":
            raise DataError(f"{self.where()}: size is {size.dtype} of shape {size.shape}; height and width expected")
        height, width = size.reshape(-1).tolist()
        return size_in({"height": height, "width": width}, "width", "height", self.where())


class M2H5Reader(IndexedRegionReader):
    """Positions count images, by id as text."""

    name: ClassVar[str] = "m2-h5"
    layout: ClassVar[str] = "an HDF5 file with {id}_features and {id}_boxes"
    box_kind: BoxKind = "unknown"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        file = _find_file(path)
        return None if file is None else f"the HDF5 file {file.name}"

    def __init__(self, path: Path) -> None:
        file = _find_file(path)
        if file is None:
            raise DataError(f"{path}: {self.layout} expected; there must be exactly one in a folder")
        self.file = file
        arrays = array_names(file)
        self.names = sorted(name.removesuffix(FEATURES) for name in arrays if name.endswith(FEATURES))
        if not self.names:
            found = f"there are {', '.join(arrays[:5])}" if arrays else "it is empty"
            raise DataError(f"{file}: no array is named {{id}}{FEATURES}; {found}")

    def find(self, name: str) -> Pending:
        return PendingArrays(self.file, name)

    def about(self) -> dict[str, Any]:
        return {"file": self.file.name, "bytes": self.file.stat().st_size}

    def close(self) -> None:
        close_cached()


def _find_file(path: Path) -> Path | None:
    """The HDF5 file at *path*, or the only one in it; files of Unified VLP's archives do not count."""
    if path.is_dir():
        if VlpH5Reader.detect(path) is not None:
            return None
        files = [file for pattern in ("*.hdf5", "*.h5") for file in path.glob(pattern) if is_hdf5(file)]
    else:
        files = [path] if is_hdf5(path) else []
    files = [file for file in files if not PART.fullmatch(file.name)]
    return files[0] if len(files) == 1 else None
