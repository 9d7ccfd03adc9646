"""The horizontal axis of several logs that follow one another, wide enough for short ones to be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST = 0.15  # of the axis, a stage's share; if there are many stages, 0.6 of an equal share
_TICKS = 6


@dataclass(frozen=True)
class StageAxis:
    """Stages side by side.

    Attributes:
        updates: of each stage.
        widths: of each on the axis, in all as many as updates. A stage of a small share is drawn wider, the others
            narrower.
    """

    updates: Sequence[int]
    widths: Sequence[float]

    @classmethod
    def of(cls, updates: Sequence[int]) -> StageAxis:
        """The axis of stages with so many updates, at least 1 in all."""
        total = sum(updates)
        least = total * min(_LEAST, 0.6 / len(updates))
        widths, short = [float(count) for count in updates], [False] * len(updates)
        while any(width < least - 1e-9 * total for width in widths):
            short = [narrow or width < least for narrow, width in zip(short, widths, strict=True)]
            rest = sum(count for count, narrow in zip(updates, short, strict=True) if not narrow)
            left = total - least * sum(short)
            widths = [least if narrow else left * count / rest for count, narrow in zip(updates, short, strict=True)]
        return cls(updates, widths)

    @property
    def starts(self) -> list[float]:
        """Where each stage begins, and where the last one ends."""
        return list(itertools.accumulate(self.widths, initial=0.0))

    @property
    def in_proportion(self) -> bool:
        """Whether no stage is drawn wider."""
        return all(abs(width - count) < 1e-6 for width, count in zip(self.widths, self.updates, strict=True))

    def place(self, stage: int, update: int) -> float:
        """Where an update of a stage lies."""
        return self.starts[stage] + update * self.widths[stage] / max(self.updates[stage], 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Places, and the updates since the first stage's beginning there: at boundaries, and within wide stages."""
        from matplotlib.ticker import MaxNLocator

        total, before, ticks = sum(self.updates), 0, [(0.0, "0")]
        for stage, count in enumerate(self.updates):
            inside = round(_TICKS * self.widths[stage] / total)
            if inside > 1:
                for value in MaxNLocator(nbins=inside, steps=[1, 2, 5, 10], integer=True).tick_values(0, count):
                    if 0.1 * count < value < 0.9 * count:
                        ticks.append((self.place(stage, int(value)), f"{before + int(value):,}"))
            before += count
            ticks.append((self.place(stage, count), f"{before:,}"))
        return ticks
