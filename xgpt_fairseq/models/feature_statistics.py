"""Detects whether two stages train on features of the same detector, by mean and standard deviation (spread).

A model keeps both per dimension for the store that it was trained on: two buffers (D,) of `RegionEncoder`, which are
part of its checkpoint. Three numbers compare two stores, each sensitive to something else:

- the shift of the means, in units of the spread: root mean square over the dimensions;
- the ratio of the spreads: another scale, or normalised features;
- the correlation, over the dimensions, of the means and of the spreads. The dimensions of another network mean
  something else, so they do not correlate even if the values are similar.

Measured with EfficientNet-lite0 unless another network is named, D = 1280: grid cells in photos of Flickr8k and COCO
(7 000, 5 252 and 156), boxes in 517 photos of COCO, and photos scaled to twice the size (388):

                             shift           ratio           correlation
    grids                    0.10 to 0.17    1.04 to 1.17    0.29 to 0.75
    grids and boxes          0.21 to 0.26    1.37 to 1.60    0.14 to 0.52
    one at twice the size    0.20 to 0.34    1.09 to 1.74    0.11 to 0.54
    EfficientNet-lite1       0.20 to 0.33    1.02 to 1.58    0.02 to 0.04
    dimensions shuffled      0.14 to 0.25    1.00 to 1.42    -0.04 to 0.02
    values doubled, grids    0.21 to 0.26    1.93 to 2.07    0.75

Shuffled dimensions cannot be detected if each was normalised to mean 0 and spread 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# The names of the two buffers in a model's state dict.
STATISTICS = ("encoder.regions.feature_mean", "encoder.regions.feature_std")

FAR_SHIFT = 0.5
FAR_RATIO = 1.75
# Three standard deviations, 3/√D, of the correlation of dimensions in random order.
CHANCE = 3.0
# With few dimensions the correlation depends too much on chance; and if the means are this near, nothing is wrong.
FEWEST_DIMENSIONS = 100
NEAR_SHIFT = 0.1
# Lower bound of a dimension's spread, as a share of the spread over all dimensions. The spread of a feature that hardly
# ever fires depends on the photos.
LEAST_SPREAD = 0.05


class Distance(NamedTuple):
    """The distance between the features of two stores.

    Attributes:
        dimensions: D.
        shift: root mean square over the dimensions of the difference of means, in units of the spread of both.
        ratio: the larger spread over all dimensions divided by the smaller one.
        correlation: over the dimensions; the average of the means' correlation and the spreads' correlation.
    """

    dimensions: int
    shift: float
    ratio: float
    correlation: float

    @property
    def far(self) -> bool:
        """Whether the features are probably of different detectors or preprocessing."""
        unrelated = self.dimensions >= FEWEST_DIMENSIONS and self.correlation < self.by_chance
        return self.shift > FAR_SHIFT or self.ratio > FAR_RATIO or (unrelated and self.shift > NEAR_SHIFT)

    @property
    def by_chance(self) -> float:
        """The largest correlation to expect by chance."""
        return CHANCE / math.sqrt(self.dimensions)

    def __str__(self) -> str:
        return (
            f"the means are {self.shift:.2f} of a spread apart (far: {FAR_SHIFT}), the spreads differ by a factor of "
            f"{self.ratio:.2f} (far: {FAR_RATIO}), and over the {self.dimensions} dimensions both correlate by "
            f"{self.correlation:.2f} (far: below {self.by_chance:.2f}, as by chance)"
        )


def distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Distance:
    """Compare two pairs of means (D,) and standard deviations (D,), of any float type."""
    # not in float16, where squares overflow
    (mean, spread), (other_mean, other_spread) = ([each.double().cpu() for each in pair] for pair in (one, other))
    tiny = torch.finfo(torch.float64).tiny
    pooled = ((spread.square() + other_spread.square()) / 2).sqrt()
    pooled = pooled.clamp_min(LEAST_SPREAD * _rms(pooled)).clamp_min(tiny)
    ratio = max(_rms(spread), tiny) / max(_rms(other_spread), tiny)
    return Distance(
        dimensions=len(mean),
        shift=_rms((mean - other_mean) / pooled),
        ratio=max(ratio, 1 / ratio),
        correlation=(_correlation(mean, other_mean) + _correlation(spread, other_spread)) / 2,
    )


def statistics_of(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """The mean and standard deviation in a state dict; None if it has none."""
    mean, spread = (state.get(name) for name in STATISTICS)
    return None if mean is None or spread is None else (mean, spread)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _correlation(x: Tensor, y: Tensor) -> float:
    """The correlation of *x* and *y*; 0 if one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = float(x.norm() * y.norm())
    return float(x @ y) / norm if norm > 0 else 0.0
