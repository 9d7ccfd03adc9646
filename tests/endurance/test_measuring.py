"""Whether what grows is noticed, and what does not is let pass."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from tests.endurance.measuring import Sample, growing, sample, seconds_per_update


def samples(**growth: float) -> list[Sample]:
    """A run of 40 looks, noisy, with a high start; *growth* is per look."""
    random = np.random.default_rng(0)
    found = []
    for number in range(40):
        start = 100 if number < 3 else 0
        found.append(
            Sample(
                500 * number,
                memory=380 + start + number * growth.get("memory", 0) + random.normal(0, 3),
                workers=1270 + number * growth.get("workers", 0) + random.normal(0, 3),
                handles=int(127 + number * growth.get("handles", 0) + random.integers(-4, 5)),
                processes=4,
                threads=7,
                seconds=20 * number + growth.get("seconds", 0) * number**2,
            )
        )
    return found


def test_what_is_level() -> None:
    assert growing(samples()) == []
    assert seconds_per_update(samples()) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("name", "growth", "said"),
    [("memory", 2, "memory in MB: "), ("workers", 5, "workers' memory"), ("handles", 0.5, "open files: "),
     ("seconds", 0.3, "processor time: ")],
)  # fmt: skip
def test_what_grows(name: str, growth: float, said: str) -> None:
    [found] = growing(samples(**{name: growth}))
    assert found.startswith(said)


def test_too_few_looks() -> None:
    with pytest.raises(ValueError, match="are too few"):
        growing(samples()[:2])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process() -> None:
    with open(os.devnull) as _:
        one = sample(os.getpid(), 7)
    assert one.update == 7 and one.memory > 10 and one.handles >= 3 and one.threads >= 1 and one.seconds > 0
