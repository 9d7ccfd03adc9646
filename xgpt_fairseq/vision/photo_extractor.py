"""What all extractors of regions have in common: photos in, regions out, and settings by which they are rebuilt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from xgpt_fairseq.devices import default_device, usable_device
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.precision import exact_convolutions
from xgpt_fairseq.regions.format import FloatArray, HalfArray
from xgpt_fairseq.vision.packing import Packed
from xgpt_fairseq.vision.photos import Photo, PhotoFile, PhotoForm, UnfitPhotoError, load_photo

# Small batches leave a GPU idle; on a CPU larger ones only evict a photo's feature maps from the cache.
GPU_BATCH: Final = 16
CPU_BATCH: Final = 1

if TYPE_CHECKING:
    from PIL import Image

Boxes = Sequence[npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Regions:
    """The regions of a photo.

    Attributes:
        features: (n, D) float16.
        boxes: (n, 4) float32 x1 y1 x2 y2 in 0..1.
        scores: (n,) float32, a detector's confidence, descending; None where no detector of ours made the boxes.
        labels: n names of what the detector sees there, likewise.
        truncated: whether the detector found more than are kept.
    """

    features: HalfArray
    boxes: FloatArray
    scores: FloatArray | None = None
    labels: tuple[str, ...] | None = None
    truncated: bool = False


class PhotoExtractor(ABC):
    """Turns photos into regions.

    Args:
        device: device of the network; None: a GPU if torch has one, else the CPU.
        batch_size: photos of one shape per batch; None: a good number for the device. The last bits of the features can
            depend on it.
        threads: concurrent batches. On a CPU, one core per batch is far better than all cores for each batch in turn:
            set torch's own threads (`torch.set_num_threads`), on which the last bits can depend, to 1 then.

    Attributes:
        form: the form in which photos are read, `photos.load_photo`'s.
        needs_boxes: whether `extract` needs boxes with the photos.
        regions: most regions of a photo; 1 where boxes come with the photos.
        feature_dim: D, the width of the features.

    Raises:
        DataError: an option is invalid, or torch lacks the device.
    """

    form: PhotoForm
    needs_boxes: bool = False

    def __init__(self, *, device: str | None, batch_size: int | None, threads: int) -> None:
        if batch_size is not None and batch_size < 1:
            raise DataError(f"the batch size is {batch_size}; at least 1 is needed")
        if threads < 1:
            raise DataError(f"{threads} threads; at least 1 is needed")
        self.device = torch.device(usable_device(device or default_device()))
        self.batch_size = batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        self.threads = threads

    @property
    @abstractmethod
    def feature_dim(self) -> int: ...

    @property
    @abstractmethod
    def regions(self) -> int: ...

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that features depend on, as JSON; `rebuilding.rebuild` makes an extractor of it."""

    @property
    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The versions of the packages that the features depend on."""

    @property
    @abstractmethod
    def in_words(self) -> str:
        """What the regions of a photo are."""

    @property
    @abstractmethod
    def packed(self) -> Packed | None:
        """What a file of the network's weights has to hold; None: they come with a package."""

    @abstractmethod
    def extract(self, photos: Sequence[Photo], boxes: Boxes | None = None) -> list[Regions]:
        """The regions of *photos*, in their order.

        Args:
            photos: from `load`, of any shapes.
            boxes: where `needs_boxes`, for each photo (n, 4) x1 y1 x2 y2 in 0..1 of its width and height, n ≥ 0. They
                do not include the whole photo, region 0 of the result.

        Raises:
            DataError: boxes are given and not needed, or needed and not given.
        """

    @property
    def image_size(self) -> int:
        """Longer side of a photo in pixels for the network."""
        return self.form.image_size

    def load(self, photo: Path | PhotoFile | Image.Image, *, max_pixels: int | None = None) -> Photo:
        """*photo* in the form for `extract`.

        Raises:
            UnfitPhotoError: the network takes no photos of its shape (`why_unfit`).
            DataError: see `photos.load_photo`.
        """
        loaded = load_photo(photo, self.form, max_pixels=max_pixels)
        if why := self.why_unfit(loaded):
            where = photo.path if isinstance(photo, PhotoFile) else photo
            raise UnfitPhotoError(where if isinstance(where, Path) else Path(_file_of(where)), why)
        return loaded

    def why_unfit(self, photo: Photo) -> str:
        """Why the network takes no photos of the shape of *photo*, in words about "this one"; empty where it does."""
        return ""

    def _in_batches(self, photos: Sequence[Photo], run: Callable[[list[int]], Sequence[Regions]]) -> list[Regions]:
        """*run* of the indices of a batch → its regions, for all batches; the regions of all photos, in their order."""
        batches = list(self._batches(photos))
        found: dict[int, Regions] = {}
        with exact_convolutions():  # `settings` say float32; under --bf16, this changes nothing
            of_batches = self._side_by_side(run, batches)
        for batch, regions in zip(batches, of_batches, strict=True):
            found.update(zip(batch, regions, strict=True))
        return [found[index] for index in range(len(photos))]

    def _side_by_side(
        self, run: Callable[[list[int]], Sequence[Regions]], batches: list[list[int]]
    ) -> list[Sequence[Regions]]:
        if self.threads == 1:
            return list(map(run, batches))
        pool = ThreadPoolExecutor(self.threads)
        try:
            return list(pool.map(run, batches))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for pending batches

    def _batches(self, photos: Sequence[Photo]) -> Iterator[list[int]]:
        """Batches of at most `batch_size` photos of one shape. They depend only on *photos*."""
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, photo in enumerate(photos):
            by_shape[photo.pixels.shape].append(index)
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch_size):
                yield indices[start : start + self.batch_size]


def _file_of(image: Image.Image) -> str:
    """What an image of Pillow is called in messages."""
    return str(getattr(image, "filename", "") or "image")


def check_half(features: HalfArray, name: str) -> HalfArray:
    """The *features* of the network *name*. Raises DataError if one is beyond float16's range."""
    if not np.isfinite(features).all():
        raise DataError(
            f"{name} has features beyond 65 504, float16's range, in which region stores keep them: choose another "
            "layer"
        )
    return features
