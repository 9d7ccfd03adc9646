"""A hash of integers."""

from __future__ import annotations

import numpy as np

from xgpt_fairseq.hashing import mix


def test_it_is_splitmix64() -> None:
    """The first outputs of the generator from seed 1234567, as published with its reference code."""
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
