"""Paired differences and their intervals."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.experiments.tables import write_scores
from tests.scripts import example
from xgpt_fairseq.experiments import comparison
from xgpt_fairseq.experiments.runs import folder_of

TABLES = example("ablations/ablations.py").TABLES


def test_rows_are_compared_image_by_image(tmp_path: Path) -> None:
    single, multi, _ = TABLES["table6"].rows
    rng = np.random.default_rng(1)
    difficulty = rng.normal(0.5, 0.3, size=400)  # of the images: far more than what the rows differ by
    for seed, better in ((1, 0.03), (2, 0.05), (3, 0.04)):
        write_scores(folder_of(multi, seed, tmp_path), list(difficulty), CIDEr=0.5)
        if seed < 3:  # the third is not finished
            noisy = difficulty + better + rng.normal(0, 0.001, size=400)
            write_scores(folder_of(single, seed, tmp_path), list(noisy), CIDEr=0.5)
    (line,) = comparison.comparisons([single, multi], [1, 2, 3], tmp_path).splitlines()[2:]
    assert line.startswith("| single [MASK] less multi [MASK] | 400 | +4.0 [") and line.endswith("| +3.0, +5.0 |")
    assert comparison.comparisons([single], [1, 2, 3], tmp_path) == ""
    assert comparison.comparisons([single, multi], [3], tmp_path) == ""


def test_rows_without_the_score_that_is_compared_are_named(tmp_path: Path) -> None:
    """With METRICS=bleu; the third seed was scored again, with all."""
    single, multi, kept = TABLES["table6"].rows
    for row in (single, multi):
        for seed in (1, 2):
            write_scores(folder_of(row, seed, tmp_path), **{"BLEU@4": 0.3})
    said = "Not compared, since their scores have no CIDEr: single [MASK] (seeds 1, 2), multi [MASK] (seeds 1, 2).\n"
    assert comparison.comparisons([single, multi, kept], [1, 2, 3], tmp_path) == said
    for row, values in ((single, [0.3, 0.5]), (multi, [0.2, 0.4])):
        write_scores(folder_of(row, 3, tmp_path), values, CIDEr=0.4)
    *_, line, blank, last = comparison.comparisons([single, multi, kept], [1, 2, 3], tmp_path).splitlines()
    assert line == "| single [MASK] less multi [MASK] | 2 | +10.0 [+10.0, +10.0] | +10.0 |"
    assert (blank, f"{last}\n") == ("", said)


def test_rows_of_different_images_are_named(tmp_path: Path) -> None:
    single, multi, kept = TABLES["table6"].rows
    for row, values in ((single, [0.3, 0.5, 0.1]), (multi, [0.2, 0.4]), (kept, [0.4, 0.6, 0.2])):
        write_scores(folder_of(row, 1, tmp_path), values, CIDEr=0.4)
    *_, line, blank, last = comparison.comparisons([single, multi, kept], [1], tmp_path).splitlines()
    assert line.startswith("| single [MASK] with regions less single [MASK] | 3 | +10.0 ") and not blank
    assert last == "Not compared, since their scores are of different images: single [MASK] and multi [MASK]."


def test_the_interval_is_of_images_and_seeds() -> None:
    rng = np.random.default_rng(5)

    # where seeds agree, the textbook's interval of a mean of 1 000 images
    of_images = rng.normal(0, 1, size=(1, 1000)).repeat(5, axis=0)
    found = comparison.paired_difference(of_images, np.zeros((5, 1000)))
    assert found.high - found.low == pytest.approx(2 * 1.96 / 1000**0.5, rel=0.1)
    # where images agree, that of all ways to draw five of five seeds
    of_seeds = np.array([1.0, 2, 3, 4, 5])[:, None].repeat(7, axis=1)
    found = comparison.paired_difference(of_seeds, np.zeros((5, 7)))
    assert found.mean == 3 and found.by_seed == (1, 2, 3, 4, 5)
    means = sorted(np.mean(drawn) for drawn in itertools.product([1, 2, 3, 4, 5], repeat=5))
    assert found.low == pytest.approx(means[int(0.025 * len(means))], abs=0.21)
    assert found.high == pytest.approx(means[int(0.975 * len(means))], abs=0.21)
