"""Which images a captioner's user is warned about."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from xgpt_fairseq.cli.novelty_warnings import NoveltyWarnings
from xgpt_fairseq.regions.novelty import NoveltyDetector

ZEROS = np.zeros(8, np.float32)
DETECTOR = NoveltyDetector(mean=ZEROS, directions=ZEROS[None], median=1.0, limit=1.5, group_limit=1.2)


def said(distances: list[float], detector: NoveltyDetector | None = DETECTOR) -> list[str]:
    warnings = NoveltyWarnings(detector)
    lines = [line for index, distance in enumerate(distances) for line in warnings.of(f"{index}.jpg", distance)]
    warnings.print_summary()
    return lines


def test_the_first_are_named_and_all_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said([1.0, 1.6, 1.5] + 6 * [2.0])
    assert [line.split()[1] for line in lines] == ["1.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg"]
    assert lines[0] == (
        "warning: 1.jpg looks unlike the images that the model was trained on (distance 1.60; theirs is at most "
        "about 1.50): its caption is probably wrong"
    )
    assert capsys.readouterr().err == "warning: 7 of 9 images look unlike those that the model was trained on\n"


def test_images_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(10 * [1.3]) == []
    assert capsys.readouterr().err == (
        "warning: these 10 images as a whole look unlike those that the model was trained on (median distance 1.30; "
        "for 10 of those at most about 1.20): many captions may be wrong\n"
    )
    for distances in (9 * [1.3], 10 * [1.2], 6 * [1.0] + 5 * [1.4]):
        assert said(distances) == [] and capsys.readouterr().err == ""


def test_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(20 * [9.0], detector=None) == [] and capsys.readouterr().err == ""
    assert list(NoveltyWarnings(DETECTOR).of("a.jpg", None)) == []
    NoveltyWarnings(dataclasses.replace(DETECTOR)).print_summary()
    assert capsys.readouterr().err == ""
