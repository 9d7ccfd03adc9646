"""What the log says of each objective's gradient, through fairseq's meters."""

from __future__ import annotations

import logging

import pytest
import torch
from fairseq.logging import metrics

from xgpt_fairseq.tasks.gradient_log import WINDOW, GradientLog


def update(log: GradientLog, objective: str, norm: float, *, clip_norm: float = 5.0) -> None:
    """What fairseq's trainer logs of an update, and then the task."""
    metrics.log_scalar("gnorm", torch.tensor(norm))
    if clip_norm > 0:
        metrics.log_scalar("clip", torch.tensor(100.0 if norm > clip_norm else 0.0))
    with metrics.aggregate():
        log.log(objective)


@pytest.fixture(autouse=True)
def no_meters():
    metrics.reset()
    yield
    metrics.reset()


def test_norms_and_clipped_updates_are_told_apart_by_objective() -> None:
    log = GradientLog()
    with metrics.aggregate("train_inner") as meters:
        for norm in (1.0, 9.0, 3.0, 4.0):
            update(log, "ic", norm)
            update(log, "tifg", 10 * norm)
    values = meters.get_smoothed_values()
    assert float(values["ic_gnorm"]) == pytest.approx(4.25) and float(values["ic_clip"]) == 25
    assert float(values["tifg_gnorm"]) == pytest.approx(42.5) and float(values["tifg_clip"]) == 100


def test_without_clipping_there_is_no_share(caplog: pytest.LogCaptureFixture) -> None:
    log = GradientLog()
    with metrics.aggregate("train_inner") as meters:
        for _ in range(2 * WINDOW):
            update(log, "ic", 9.0, clip_norm=0.0)
    assert "ic_gnorm" in meters and "ic_clip" not in meters and not caplog.records


def test_validation_has_no_gradients() -> None:
    with metrics.aggregate(new_root=True) as meters:
        GradientLog().log("ic")
    assert not meters.get_smoothed_values()


def test_an_objective_that_is_always_clipped_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    log = GradientLog()
    with metrics.aggregate("train_inner"), caplog.at_level(logging.WARNING):
        for number in range(4 * WINDOW):
            update(log, "tifg", 2969.0)
            update(log, "ic", 9.0 if number < WINDOW else 2.0)  # as every training begins
            assert len(caplog.records) == (number >= 2 * WINDOW - 1)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"tifg: 100 % of its last {WINDOW} updates were clipped (--clip-norm)")
