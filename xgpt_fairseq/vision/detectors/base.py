"""What the detectors have in common: photos in, boxes with features out, and everything that decides a feature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones.base import Origin
from xgpt_fairseq.vision.packing import Packed
from xgpt_fairseq.vision.photos import PhotoForm


@dataclass(frozen=True)
class DetectorOptions:
    """What a user chooses of a detector, besides its name.

    Attributes:
        weights: a file of weights; None: the published ones.
        offline: never use the network.
        label_names: files with the names of what the detector knows, one a line: objects, and perhaps attributes; None:
            the detector's own names, or numbers.
    """

    weights: Path | None = None
    offline: bool = False
    label_names: Sequence[Path] = ()


@dataclass(frozen=True)
class Found:
    """What a detector found in a photo, the most confident first.

    Attributes:
        features: (n, D) float.
        boxes: (n, 4) x1 y1 x2 y2 in pixels of the photo as the detector saw it.
        scores: (n,) 0..1, descending.
        labels: n names.
        truncated: whether there were more than are kept.
    """

    features: Tensor
    boxes: Tensor
    scores: Tensor
    labels: tuple[str, ...]
    truncated: bool = False


class Detector(nn.Module, ABC):
    """A network that finds objects in photos, with a feature for each.

    Args:
        name: as the user names it.
        form: of its photos.
        origin: of the weights.
        packed: makes what a file of its weights has to hold.

    Attributes:
        fewest: regions of a photo at least, where the user names no number; None: it cannot be chosen.
        most: regions of a photo at most, likewise.
        feature_dim: D, the width of the features.
    """

    fewest: ClassVar[int | None] = None
    most: ClassVar[int] = 100
    feature_dim: int

    def __init__(self, name: str, *, form: PhotoForm, origin: Origin, packed: Callable[[], Packed]) -> None:
        super().__init__()
        self.name = name
        self.packed = packed
        self.form = form
        self.origin = origin

    @property
    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """What decides boxes and features besides weights and the form of photos, as JSON."""

    @abstractmethod
    def detect(
        self, pixels: Tensor, sizes: Sequence[tuple[int, int]], *, min_regions: int, max_regions: int
    ) -> list[Found]:
        """The regions of photos.

        Args:
            pixels: (B, H, W, 3) uint8 RGB, in `form`.
            sizes: width and height of the originals in pixels.
            min_regions: regions of a photo at least.
            max_regions: at most.
        """

    @property
    def identity(self) -> dict[str, Any]:
        """Everything of it that decides a feature, as JSON."""
        return {
            "detector": self.name,
            "weights_sha256": self.origin.weights_sha256,
            "shorter_side": self.form.shorter_side,
            "image_size": self.form.image_size,
            "interpolation": self.form.interpolation,
            "dtype": "float32",
            **self.rules,
        }


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """The names of *count* classes, from a file with one a line. Of alternatives ("a,b"), the first.

    Raises:
        DataError: the file is not there, or has another number of lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--label-names {path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from None
    names = tuple(line.split(",")[0].strip() for line in lines if line.strip())
    if len(names) != count:
        raise DataError(f"--label-names {path}: {len(names)} names; the detector knows {count}")
    return names
