"""Extracts regions from photos: features and boxes, for a region store or a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xgpt_fairseq.devices import default_device
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.format import MAX_REGIONS, FloatArray, HalfArray
from xgpt_fairseq.vision import backbone
from xgpt_fairseq.vision.photos import IMAGE_SIZE, Photo, PhotoFile, check_image_size, load_photo
from xgpt_fairseq.vision.pooling import SAMPLES, grid_boxes, grid_regions, pool_regions, with_full_image

GRID: Final = 6
SETTINGS_VERSION: Final = 1

# Small batches leave a GPU idle; on a CPU larger ones only evict a photo's feature maps from the cache.
GPU_BATCH: Final = 16
CPU_BATCH: Final = 1

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Regions:
    """The regions of a photo: features (n, D) float16; boxes (n, 4) float32 x1 y1 x2 y2 in 0..1. Region 0 is the whole
    photo."""

    features: HalfArray
    boxes: FloatArray


class RegionExtractor:
    """Extracts regions from photos: runs the backbone once per photo, and pools features of boxes from its last map.

        extractor = RegionExtractor()
        [regions] = extractor.extract([extractor.load(Path("photo.jpg"))])

    Regions are the whole photo and either the cells of a grid, row by row, or boxes given with each photo.

    Args:
        grid: cells in each direction, 1 to 9. None: `extract` takes boxes.
        image_size: longer side of a photo in pixels for the backbone, a multiple of 32.
        device: device of the backbone; None: a GPU if torch has one, else the CPU.
        batch_size: photos of one shape per batch; None: a good number for the device. The last bits of the features can
            depend on it.
        threads: concurrent batches. On a CPU, one core per batch is far better than all cores for each batch in turn:
            set torch's own threads (`torch.set_num_threads`), on which the last bits can depend, to 1 then.

    Raises:
        DataError: an option is invalid, the backbone's packages are not installed, or torch lacks the device.
    """

    def __init__(
        self,
        *,
        grid: int | None = GRID,
        image_size: int = IMAGE_SIZE,
        device: str | None = None,
        batch_size: int | None = None,
        threads: int = 1,
    ) -> None:
        check_image_size(image_size)
        if grid is not None and not (grid >= 1 and grid_regions(grid) <= MAX_REGIONS):
            raise DataError(
                f"a grid of {grid} x {grid}: with the whole photo, 2 to {MAX_REGIONS} regions are allowed, that is, a "
                "grid of 1 to 9"
            )
        if batch_size is not None and batch_size < 1:
            raise DataError(f"the batch size is {batch_size}; at least 1 is needed")
        if threads < 1:
            raise DataError(f"{threads} threads; at least 1 is needed")
        self.grid = grid
        self.image_size = image_size
        self.device = _device(device)
        self.batch_size = batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        self.threads = threads
        self._backbone = backbone.load_backbone().to(self.device)

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return backbone.FEATURE_DIM

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that features depend on, as JSON, for `from_settings`."""
        return {
            "version": SETTINGS_VERSION,
            "backbone": backbone.NAME,
            "weights_sha256": backbone.weights_sha256(),
            "image_size": self.image_size,
            "samples": SAMPLES,
            "grid": self.grid,
        }

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], *, device: str | None = None, batch_size: int | None = None
    ) -> Self:
        """An extractor of the same features, on any device.

        Raises:
            DataError: the settings are of another program or version, or of other weights than the installed ones.
        """
        version = settings.get("version")
        if not isinstance(version, int) or version > SETTINGS_VERSION:
            raise DataError(
                f"settings of the region extractor have version {version!r}, this xgpt_fairseq reads versions up to "
                f"{SETTINGS_VERSION}: upgrade it"
            )
        try:
            extractor = cls(
                grid=settings["grid"], image_size=settings["image_size"], device=device, batch_size=batch_size
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"settings of the region extractor are damaged: {type(error).__name__} {error}") from None
        for name, value in extractor.settings.items():
            if name != "version" and settings.get(name) != value:
                raise DataError(
                    f"the region extractor was made with {name} {settings.get(name)!r}; here it is {value!r}, with "
                    "other features"
                )
        return extractor

    def load(self, photo: Path | PhotoFile | Image.Image, *, max_pixels: int | None = None) -> Photo:
        """*photo* in the size for `extract`. Raises DataError as `photos.load_photo`."""
        return load_photo(photo, self.image_size, max_pixels=max_pixels)

    def extract(
        self, photos: Sequence[Photo], boxes: Sequence[npt.NDArray[np.floating[Any]]] | None = None
    ) -> list[Regions]:
        """The regions of *photos*, in their order.

        Args:
            photos: from `load`, of any shapes.
            boxes: without a grid, for each photo (n, 4) x1 y1 x2 y2 in 0..1 of its width and height, n ≥ 0. They do not
                include the whole photo, region 0 of the result.

        Raises:
            DataError: boxes are given to an extractor with a grid, or not given to one without.
        """
        if self.grid is not None:
            if boxes is not None:
                raise DataError(f"boxes are given to a region extractor with a grid of {self.grid} x {self.grid}")
            boxes = [grid_boxes(self.grid)] * len(photos)
        elif boxes is None:
            raise DataError("this region extractor has no grid: boxes of a detector are needed with the photos")
        elif len(boxes) != len(photos):
            raise DataError(f"{len(photos)} photos with {len(boxes)} arrays of boxes; one per photo is needed")
        regions = [with_full_image(given) for given in boxes]

        def run(batch: list[int]) -> HalfArray:
            pixels = torch.from_numpy(np.stack([photos[index].pixels for index in batch])).to(self.device)
            return self._features(pixels, [regions[index] for index in batch])

        batches = list(self._batches(photos))
        found: dict[int, Regions] = {}
        for batch, features in zip(batches, self._side_by_side(run, batches), strict=True):
            for index, photo_features in zip(batch, features, strict=True):
                found[index] = Regions(photo_features[: len(regions[index])], regions[index])
        return [found[index] for index in range(len(photos))]

    def _side_by_side(self, run: Callable[[list[int]], HalfArray], batches: list[list[int]]) -> list[HalfArray]:
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

    @torch.inference_mode()
    def _features(self, pixels: Tensor, boxes: Sequence[FloatArray]) -> HalfArray:
        """pixels (B, H, W, 3) uint8, B arrays of boxes (n, 4) → (B, most n, D), padded after each photo's own n."""
        padded = np.zeros((len(boxes), max(map(len, boxes)), 4), dtype=np.float32)
        for row, corners in zip(padded, boxes, strict=True):
            row[: len(corners)] = corners
        maps: Tensor = self._backbone(pixels)
        features: HalfArray = pool_regions(maps, torch.from_numpy(padded).to(self.device)).half().cpu().numpy()
        return features


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or default_device())
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise DataError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device
