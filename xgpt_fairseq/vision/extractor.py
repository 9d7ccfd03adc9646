"""Extracts regions from photos: features and boxes, for a region store or a model."""

from __future__ import annotations

import math
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
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.registry import DEFAULT, load_backbone
from xgpt_fairseq.vision.photos import Photo, PhotoFile, load_photo
from xgpt_fairseq.vision.pooling import SAMPLES, grid_boxes, grid_regions, pool_regions, with_full_image

GRID: Final = 6
# Instead of a number of cells: each cell of the backbone's own map is a region.
TOKENS: Final = "tokens"

SETTINGS_VERSION: Final = 2
# What settings of version 1 leave out, which were all of the default backbone's last layer.
VERSION_1: Final = {
    "layer": None,
    "prefix_tokens": 0,
    "stride": 32,
    "mean": [127.0] * 3,
    "std": [128.0] * 3,
    "interpolation": "bilinear",
    "square": False,
    "dtype": "float32",
}
# Settings that don't decide a feature.
UNCOMPARED: Final = ("version", "revision", "license")

# Small batches leave a GPU idle; on a CPU larger ones only evict a photo's feature maps from the cache.
GPU_BATCH: Final = 16
CPU_BATCH: Final = 1

# Cells of the largest grid in each direction.
MOST_CELLS: Final = math.isqrt(MAX_REGIONS - 1)

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
        backbone: one of `backbones.registry.FAMILIES`.
        options: of the backbone.
        grid: cells in each direction; or `TOKENS`, the cells of the backbone's own map. None: `extract` takes boxes.
        image_size: longer side of a photo in pixels for the backbone, a multiple of its stride (32 for the default);
            None: the backbone's own.
        device: device of the backbone; None: a GPU if torch has one, else the CPU.
        batch_size: photos of one shape per batch; None: a good number for the device. The last bits of the features can
            depend on it.
        threads: concurrent batches. On a CPU, one core per batch is far better than all cores for each batch in turn:
            set torch's own threads (`torch.set_num_threads`), on which the last bits can depend, to 1 then.

    Attributes:
        form: the form in which photos are read, `photos.load_photo`'s.

    Raises:
        DataError: an option is invalid, the backbone can't be loaded (`load_backbone`), or torch lacks the device.
    """

    def __init__(
        self,
        *,
        backbone: str = DEFAULT,
        options: BackboneOptions | None = None,
        grid: int | str | None = GRID,
        image_size: int | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        threads: int = 1,
    ) -> None:
        if grid is not None and grid != TOKENS and not 1 <= int(grid) <= MOST_CELLS:
            raise DataError(
                f"a grid of {grid} x {grid}: with the whole photo, 2 to {MAX_REGIONS} regions are allowed, that is, a "
                f"grid of 1 to {MOST_CELLS}"
            )
        if batch_size is not None and batch_size < 1:
            raise DataError(f"the batch size is {batch_size}; at least 1 is needed")
        if threads < 1:
            raise DataError(f"{threads} threads; at least 1 is needed")
        self.grid = grid
        self.device = _device(device)
        self.batch_size = batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        self.threads = threads
        self._backbone = load_backbone(backbone, options)
        self.form = self._backbone.form(image_size)
        if self.regions > MAX_REGIONS:
            side = image_size or self._backbone.preprocessing.image_size
            raise DataError(
                f"{backbone} has a map of {self.regions - 1} cells for photos of {side} pixels; a region store keeps "
                f"{MAX_REGIONS} regions a photo at most: choose a smaller image size, or a grid"
            )
        self._backbone.to(self.device)

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return self._backbone.feature_dim

    @property
    def image_size(self) -> int:
        """Longer side of a photo in pixels for the backbone."""
        return self.form.image_size

    @property
    def regions(self) -> int:
        """Most regions of a photo, the whole photo included; 1 where boxes come with the photos."""
        if self.grid is None:
            return 1
        return grid_regions(self.form.image_size // self.form.stride if self.grid == TOKENS else int(self.grid))

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that features depend on, as JSON, for `from_settings`."""
        origin = self._backbone.origin
        return {
            "version": SETTINGS_VERSION,
            **self._backbone.identity,
            "image_size": self.image_size,
            "samples": SAMPLES,
            "grid": self.grid,
            "revision": origin.revision,
            "license": origin.license,
        }

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that the features depend on."""
        return dict(self._backbone.origin.versions)

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Any],
        *,
        weights: Path | None = None,
        offline: bool = False,
        device: str | None = None,
        batch_size: int | None = None,
    ) -> Self:
        """An extractor of the same features, on any device.

        Args:
            weights: where the backbone's weights lie here, if they are not the published ones.

        Raises:
            DataError: the settings are of another program or version, or of other weights than those found here.
        """
        version = settings.get("version")
        if not isinstance(version, int) or version > SETTINGS_VERSION:
            raise DataError(
                f"settings of the region extractor have version {version!r}, this xgpt_fairseq reads versions up to "
                f"{SETTINGS_VERSION}: upgrade it"
            )
        try:
            extractor = cls(
                backbone=settings["backbone"],
                options=BackboneOptions(
                    weights=weights, layer=settings.get("layer"), offline=offline, revision=settings.get("revision")
                ),
                grid=settings["grid"],
                image_size=settings["image_size"],
                device=device,
                batch_size=batch_size,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"settings of the region extractor are damaged: {type(error).__name__} {error}") from None
        for name, then, now in settings_that_differ(settings, extractor.settings):
            raise DataError(
                f"the region extractor was made with {name} {then!r}; here it is {now!r}, with other features"
            )
        return extractor

    def load(self, photo: Path | PhotoFile | Image.Image, *, max_pixels: int | None = None) -> Photo:
        """*photo* in the form for `extract`. Raises DataError as `photos.load_photo`."""
        return load_photo(photo, self.form, max_pixels=max_pixels)

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
                raise DataError(f"boxes are given to a region extractor with {grid_in_words(self.grid)}")
            boxes = self._cells(photos)
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

    def _cells(self, photos: Sequence[Photo]) -> list[FloatArray]:
        """The cells of each photo's grid: (n, 4)."""
        if self.grid != TOKENS:
            return [grid_boxes(int(self.grid or 0))] * len(photos)
        stride = self.form.stride
        return [grid_boxes(photo.pixels.shape[1] // stride, photo.pixels.shape[0] // stride) for photo in photos]

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
        if self.grid == TOKENS:  # of a batch, all photos have the same cells
            cells = maps.flatten(2).transpose(1, 2)  # (B, H * W, D)
            found = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
        else:
            found = pool_regions(maps, torch.from_numpy(padded).to(self.device))
        features: HalfArray = found.half().cpu().numpy()
        if not np.isfinite(features).all():
            raise DataError(
                f"{self._backbone.name} has features beyond 65 504, float16's range, in which region stores keep them: "
                "choose another layer"
            )
        return features


def grid_in_words(grid: int | str | None) -> str:
    """What the regions of a photo are."""
    if grid is None:
        return "boxes of a detector"
    return "the cells of the backbone's map" if grid == TOKENS else f"a grid of {grid} x {grid}"


def settings_that_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The settings of two extractors that make other features: their names, and both values."""
    full = [{**VERSION_1, **settings} if settings.get("version") == 1 else settings for settings in (one, other)]
    for name in dict.fromkeys([*full[0], *full[1]]):
        values = full[0].get(name), full[1].get(name)
        if name not in UNCOMPARED and values[0] != values[1]:
            yield name, *values


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or default_device())
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise DataError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device
