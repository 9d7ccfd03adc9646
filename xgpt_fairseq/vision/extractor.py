"""Extracts regions from photos with a backbone: features of a grid's cells, or of boxes that are given."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.feature_settings import SETTINGS_VERSION
from xgpt_fairseq.regions.format import FloatArray, HalfArray
from xgpt_fairseq.regions.limits import MAX_REGIONS
from xgpt_fairseq.vision.backbones.base import Backbone, BackboneOptions
from xgpt_fairseq.vision.backbones.registry import DEFAULT, load_backbone
from xgpt_fairseq.vision.choices import GRID, MOST_CELLS, TOKENS
from xgpt_fairseq.vision.packing import Packed
from xgpt_fairseq.vision.photo_extractor import Boxes, PhotoExtractor, Regions, check_half
from xgpt_fairseq.vision.photos import Photo
from xgpt_fairseq.vision.pooling import SAMPLES, grid_boxes, grid_regions, map_cells, pool_regions, with_full_image


class RegionExtractor(PhotoExtractor):
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
        square: whether photos are squeezed to squares of that size, as those of some data sets are.
        device, batch_size, threads: as `PhotoExtractor`.
        bf16: whether the network computes in bfloat16 (its sums and norms in float32, as torch's autocast has them).
        compile: whether torch compiles it, once for each shape of photos. The last bits can depend on it.

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
        square: bool = False,
        device: str | None = None,
        batch_size: int | None = None,
        threads: int = 1,
        bf16: bool = False,
        compile: bool = False,
    ) -> None:
        if grid is not None and grid != TOKENS and not 1 <= int(grid) <= MOST_CELLS:
            raise DataError(
                f"a grid of {grid} x {grid}: with the whole photo, 2 to {MAX_REGIONS} regions are allowed, that is, a "
                f"grid of 1 to {MOST_CELLS}"
            )
        super().__init__(device=device, batch_size=batch_size, threads=threads)
        self.grid = grid
        self.needs_boxes = grid is None
        self._backbone = load_backbone(backbone, options)
        self.form = self._backbone.form(image_size, square)
        if self.regions > MAX_REGIONS:
            side = image_size or self._backbone.preprocessing.image_size
            raise DataError(
                f"{backbone} has a map of {self.regions - 1} cells for photos of {side} pixels; a region store keeps "
                f"{MAX_REGIONS} regions a photo at most: choose a smaller image size, or a grid"
            )
        self.bf16 = bf16
        self._unfit: dict[tuple[int, int], str] = {}  # height and width of photos → `why_unfit`
        self._trying = threading.Lock()  # photos are read in several threads
        # Pixels lie channels-last in memory, and convolutions are fastest where weights do, too.
        self._backbone.to(self.device)
        self._backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not annotated
        if compile:
            self._backbone.network.compile()

    @property
    def backbone(self) -> Backbone:
        """The network that sees the photos."""
        return self._backbone

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return self._backbone.feature_dim

    @property
    def regions(self) -> int:
        """Most regions of a photo, the whole photo included; 1 where boxes come with the photos."""
        if self.grid is None:
            return 1
        return grid_regions(self.form.image_size // self.form.stride if self.grid == TOKENS else int(self.grid))

    @property
    def in_words(self) -> str:
        """What the regions of a photo are."""
        return grid_in_words(self.grid)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that features depend on, as JSON; `rebuilding.rebuild` makes an extractor of it."""
        origin = self._backbone.origin
        return {
            "version": SETTINGS_VERSION,
            **self._backbone.identity,
            "dtype": "bfloat16" if self.bf16 else "float32",
            "image_size": self.image_size,
            "square": self.form.square,
            "samples": SAMPLES,
            "grid": self.grid,
            "revision": origin.revision,
            "license": origin.license,
        }

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that the features depend on."""
        return dict(self._backbone.origin.versions)

    @property
    def packed(self) -> Packed | None:
        """What a file of the network's weights has to hold; None: they come with a package."""
        packed = self._backbone.packed
        return None if packed is None else packed()

    def extract(self, photos: Sequence[Photo], boxes: Boxes | None = None) -> list[Regions]:
        """See `PhotoExtractor.extract`.

        Raises:
            DataError: boxes are given and not needed, or needed and not given; or a photo is unfit (`why_unfit`).
        """
        for why in map(self.why_unfit, photos):
            if why:
                raise DataError(f"{self._backbone.name}: {why}")
        if self.grid is not None:
            if boxes is not None:
                raise DataError(f"boxes are given to a region extractor with {self.in_words}")
            boxes = self._cells(photos)
        elif boxes is None:
            raise DataError("this region extractor has no grid: boxes of a detector are needed with the photos")
        elif len(boxes) != len(photos):
            raise DataError(f"{len(photos)} photos with {len(boxes)} arrays of boxes; one per photo is needed")
        regions = [with_full_image(given) for given in boxes]

        def run(batch: list[int]) -> list[Regions]:
            pixels = torch.from_numpy(np.stack([photos[index].pixels for index in batch])).to(self.device)
            features = self._features(pixels, [regions[index] for index in batch])
            return [
                Regions(of_photo[: len(regions[index])], regions[index])
                for index, of_photo in zip(batch, features, strict=True)
            ]

        return self._in_batches(photos, run)

    def why_unfit(self, photo: Photo) -> str:
        """See `PhotoExtractor.why_unfit`: transformers' Swin needs as many patches along each side as its windows have.

        The first photo of each shape is tried, where the network may not take all shapes.

        Raises:
            Exception: of the network, which fails for any photo.
        """
        height, width = photo.pixels.shape[:2]
        own = self._backbone.preprocessing.image_size
        if self._backbone.any_shape or height == width == own:
            return ""
        with self._trying:
            if (height, width) not in self._unfit:
                square = max(self.image_size, own // self.form.stride * self.form.stride)
                reason = self._backbone.why_not(height, width, square=square)
                self._unfit[height, width] = reason and (
                    f"the network takes no photos of {width} x {height} pixels, as it would see this one ({reason})"
                )
            return self._unfit[height, width]

    def _cells(self, photos: Sequence[Photo]) -> list[FloatArray]:
        """The cells of each photo's grid: (n, 4)."""
        if self.grid != TOKENS:
            return [grid_boxes(int(self.grid or 0))] * len(photos)
        stride = self.form.stride
        return [grid_boxes(photo.pixels.shape[1] // stride, photo.pixels.shape[0] // stride) for photo in photos]

    @torch.inference_mode()
    def _features(self, pixels: Tensor, boxes: Sequence[FloatArray]) -> HalfArray:
        """pixels (B, H, W, 3) uint8, B arrays of boxes (n, 4) → (B, most n, D), padded after each photo's own n."""
        padded = np.zeros((len(boxes), max(map(len, boxes)), 4), dtype=np.float32)
        for row, corners in zip(padded, boxes, strict=True):
            row[: len(corners)] = corners
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            maps = self._backbone(pixels).float()
        # of a batch, all photos have the same cells
        found = map_cells(maps) if self.grid == TOKENS else pool_regions(maps, torch.from_numpy(padded).to(self.device))
        return check_half(found.half().cpu().numpy(), self._backbone.name)


def grid_in_words(grid: int | str | None) -> str:
    """What the regions of a photo are."""
    if grid is None:
        return "boxes of a detector"
    return "the cells of the backbone's map" if grid == TOKENS else f"a grid of {grid} x {grid}"
