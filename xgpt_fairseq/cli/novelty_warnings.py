"""Warnings about images that look unlike those that a captioner was trained on."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xgpt_fairseq.regions.novelty import NoveltyDetector

# Images that are named one by one.
NAMED: Final = 5


class NoveltyWarnings:
    """Collects the distances of a captioner's images, and says which are far from its training images.

    Args:
        detector: the captioner's; None: there is nothing to say.
    """

    def __init__(self, detector: NoveltyDetector | None) -> None:
        self._detector = detector
        self._distances: list[float] = []
        self._far = 0

    def of(self, name: str, distance: float | None) -> Iterator[str]:
        """The lines to print about the image *name* at *distance*: one if it is among the first few far ones."""
        if self._detector is None or distance is None:
            return
        self._distances.append(distance)
        if distance > self._detector.limit:
            self._far += 1
            if self._far <= NAMED:
                yield (
                    f"warning: {name} looks unlike the images that the model was trained on (distance {distance:.2f}; "
                    f"theirs is at most about {self._detector.limit:.2f}): its caption is probably wrong"
                )

    def print_summary(self) -> None:
        """Print what is to be said about all images together."""
        if self._detector is None or not self._distances:
            return
        from xgpt_fairseq.regions.novelty import GROUP

        count, median = len(self._distances), statistics.median(self._distances)
        if self._far > NAMED:
            print(
                f"warning: {self._far} of {count} images look unlike those that the model was trained on",
                file=sys.stderr,
            )
        elif count >= GROUP and median > self._detector.group_limit:
            print(
                f"warning: these {count} images as a whole look unlike those that the model was trained "
                f"on (median distance {median:.2f}; for {GROUP} of those at most about "
                f"{self._detector.group_limit:.2f}): "
                "many captions may be wrong",
                file=sys.stderr,
            )
