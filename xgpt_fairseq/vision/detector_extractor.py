"""Extracts the regions that a detector finds in photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.feature_settings import SETTINGS_VERSION
from xgpt_fairseq.regions.limits import MAX_REGIONS
from xgpt_fairseq.vision.detectors.base import DetectorOptions, Found
from xgpt_fairseq.vision.detectors.registry import load_detector
from xgpt_fairseq.vision.packing import Packed
from xgpt_fairseq.vision.photo_extractor import Boxes, PhotoExtractor, Regions, check_half
from xgpt_fairseq.vision.photos import Photo


class DetectorExtractor(PhotoExtractor):
    """Extracts the regions that a detector finds, with its own features of them.

    Args:
        detector: one of `detectors.registry.FAMILIES`.
        options: of the detector.
        min_regions, max_regions: regions of a photo at least and at most; None: as is usual with the detector.
        device, batch_size, threads: as `PhotoExtractor`.

    Raises:
        DataError: an option is invalid, the detector can't be loaded (`load_detector`), or torch lacks the device.
    """

    def __init__(
        self,
        detector: str,
        *,
        options: DetectorOptions | None = None,
        min_regions: int | None = None,
        max_regions: int | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(device=device, batch_size=batch_size, threads=threads)
        self._detector = load_detector(detector, options)
        fewest = self._detector.fewest
        if fewest is None and min_regions not in (None, 1):
            raise DataError(f"{detector} finds as many regions as it finds: there is no least number to choose")
        self.max_regions = self._detector.most if max_regions is None else max_regions
        self.min_regions = min(fewest or 1, self.max_regions) if min_regions is None else min_regions
        if not 1 <= self.min_regions <= self.max_regions <= MAX_REGIONS:
            raise DataError(
                f"at least {self.min_regions} and at most {self.max_regions} regions; 1 to {MAX_REGIONS} are allowed, "
                "the first number not above the second"
            )
        self.form = self._detector.form
        self._detector.to(self.device)

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return self._detector.feature_dim

    @property
    def regions(self) -> int:
        """Most regions of a photo."""
        return self.max_regions

    @property
    def in_words(self) -> str:
        """What the regions of a photo are."""
        return f"what {self._detector.name} detects"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that features depend on, as JSON; `rebuilding.rebuild` makes an extractor of it."""
        return {
            "version": SETTINGS_VERSION,
            **self._detector.identity,
            "min_regions": self.min_regions,
            "max_regions": self.max_regions,
        }

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that the features depend on."""
        return dict(self._detector.origin.versions)

    @property
    def packed(self) -> Packed | None:
        """What a file of the network's weights has to hold; None: they come with a package."""
        return self._detector.packed()

    @torch.inference_mode()
    def extract(self, photos: Sequence[Photo], boxes: Boxes | None = None) -> list[Regions]:
        """See `PhotoExtractor.extract`."""
        if boxes is not None:
            raise DataError(f"boxes are given to an extractor of {self.in_words}")
        return self._in_batches(photos, lambda batch: self._run([photos[index] for index in batch]))

    @torch.inference_mode()  # of each thread
    def _run(self, photos: Sequence[Photo]) -> list[Regions]:
        """The regions of photos of one shape."""
        pixels = torch.from_numpy(np.stack([photo.pixels for photo in photos])).to(self.device)
        found = self._detector.detect(
            pixels, [photo.size for photo in photos], min_regions=self.min_regions, max_regions=self.max_regions
        )
        height, width = pixels.shape[1:3]
        return [self._regions(each, width, height) for each in found]

    def _regions(self, found: Found, width: int, height: int) -> Regions:
        """*found* in a photo of *width* × *height* pixels, as a store keeps it."""
        boxes = found.boxes.cpu().numpy() / np.array([width, height] * 2)
        return Regions(
            check_half(found.features.half().cpu().numpy(), self._detector.name),
            boxes.clip(0, 1).astype(np.float32),
            found.scores.float().cpu().numpy(),
            found.labels,
            found.truncated,
        )
