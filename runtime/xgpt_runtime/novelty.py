"""Warnings about photos that look unlike those that a captioner was trained on: their captions are probably wrong.

The distance is the reconstruction error of a photo's mean feature in a subspace of those of training photos, in units
of the training photos' median.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_runtime.errors import DataError

FILE: Final = "novelty.npz"
# Photos that are named one by one.
NAMED: Final = 5
# Photos that are judged together, by their median distance.
GROUP: Final = 10


class Novelty:
    """Distances from the training photos; also the largest usual ones, of one photo and of the median of a group.

    Raises:
        DataError: *file* is damaged.
    """

    def __init__(self, file: Path) -> None:
        try:
            with np.load(file) as arrays:
                self._mean = arrays["mean"].astype(np.float32)  # (D,)
                self._directions = arrays["directions"].astype(np.float32)  # (k, D)
                self._median, self.limit, self.group_limit = map(float, arrays["limits"])
        except Exception as error:  # bytes that are damaged fail anywhere in numpy
            raise DataError(f"{file} is damaged: {type(error).__name__} {error}") from None
        if self._directions.ndim != 2 or self._mean.shape != self._directions.shape[1:]:
            shapes = f"{self._mean.shape} and {self._directions.shape}"
            raise DataError(f"{file} is damaged: mean and directions have shapes {shapes}, not (D,) and (k, D)")

    def distance(self, features: npt.NDArray[Any]) -> float:
        """The distance of a photo by its regions' *features* (n, D)."""
        centred = features.mean(axis=0, dtype=np.float32) - self._mean
        rest = centred - (centred @ self._directions.T) @ self._directions
        return float(np.sqrt(rest @ rest)) / self._median


class NoveltyWarnings:
    """Collects the distances of photos, and says which are far; *novelty* None: there is nothing to say."""

    def __init__(self, novelty: Novelty | None) -> None:
        self._novelty = novelty
        self._distances: list[float] = []
        self._far = 0

    def of(self, name: str, distance: float | None) -> Iterator[str]:
        """The lines about the photo *name* at *distance*: one if it is among the first few far ones."""
        if self._novelty is None or distance is None:
            return
        self._distances.append(distance)
        if distance > self._novelty.limit:
            self._far += 1
            if self._far <= NAMED:
                yield (
                    f"warning: {name} looks unlike the images that the model was trained on (distance {distance:.2f}; "
                    f"theirs is at most about {self._novelty.limit:.2f}): its caption is probably wrong"
                )

    def summary(self) -> str:
        """What is to be said about all photos together; empty: nothing."""
        if self._novelty is None or not self._distances:
            return ""
        count, median = len(self._distances), statistics.median(self._distances)
        if self._far > NAMED:
            return f"warning: {self._far} of {count} images look unlike those that the model was trained on"
        if count >= GROUP and median > self._novelty.group_limit:
            return (
                f"warning: these {count} images as a whole look unlike those that the model was trained "
                f"on (median distance {median:.2f}; for {GROUP} of those at most about "
                f"{self._novelty.group_limit:.2f}): many captions may be wrong"
            )
        return ""
