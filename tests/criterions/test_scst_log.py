"""What is known of SCST's samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fairseq.logging import metrics

from tests.criterions.test_xgpt_scst import ToyVocabulary
from xgpt_fairseq.criterions.scst_log import SampleLog, log_samples
from xgpt_fairseq.metrics.word_ids import WordIds


def test_samples_that_degrade_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    vocabulary = ToyVocabulary()
    log = SampleLog(WordIds(vocabulary), vocabulary, vocabulary.dictionary.pad())

    def see(batches: int, repeats: int, bad_ends: int) -> list[str]:
        caplog.clear()
        for _ in range(batches):
            log.watch({"scst_samples": 20, "scst_repeats": repeats, "scst_bad_ends": bad_ends})
        return [record.message for record in caplog.records]

    assert see(50, 2, 0) == see(100, 5, 1) == []  # 25 % and 5 %, from 10 % and 0 %
    (said,) = see(50, 7, 2)
    assert said.startswith(
        "35 % of the sampled captions have two successive words twice, 10 % at the start: lower the learning rate"
    )
    (said,) = see(100, 20, 3)
    assert said.startswith('15 % of the sampled captions end in "a", "of" and the like, 0 % at the start')


LOGS: list[dict[str, Any]] = [
    {
        "loss": 6.0, "scst_samples": 4, "scst_reward": 8.0, "scst_baseline": 6.0, "scst_tokens": 30.0,
        "scst_distinct": 3.0, "scst_cut": 1.0, "scst_repeats": 2.0, "scst_bad_ends": 0.0,
        "scst_entropy": 16 * math.log(2), "scst_kl": 0.8, "scst_sampling_s": 0.4, "scst_reward_s": 0.06,
        "scst_batches": 1,
    },
    {
        "loss": -2.0, "scst_samples": 12, "scst_reward": 12.0, "scst_baseline": 10.0, "scst_tokens": 66.0,
        "scst_distinct": 9.0, "scst_cut": 3.0, "scst_repeats": 0.0, "scst_bad_ends": 6.0,
        "scst_entropy": 32 * math.log(2), "scst_kl": 1.2, "scst_sampling_s": 0.4, "scst_reward_s": 0.06,
        "scst_batches": 3,
    },
]  # fmt: skip


@pytest.mark.parametrize("updates", [[LOGS], [LOGS[:1], LOGS[1:]]], ids=["one update", "two"])
def test_what_is_logged_are_means(updates: list[list[dict[str, Any]]]) -> None:
    """Over the samples or batches of all processes, and of all updates between two lines of the log."""
    with metrics.aggregate() as found:
        assert all(log_samples(logs) for logs in updates)
    assert dict(found.get_smoothed_values()) == pytest.approx({
        "loss": 0.25, "reward": 1.25, "baseline": 1.0, "length": 6.0, "distinct": 75.0, "cut": 25.0, "repeats": 12.5,
        "bad_ends": 37.5, "entropy": 3.0, "kl": 0.125, "sampling_s": 0.2, "reward_s": 0.03,
    })  # fmt: skip


def test_what_is_not_there_is_not_logged() -> None:
    with metrics.aggregate() as found:
        assert log_samples([log | {"scst_kl": 0.0} for log in LOGS])
    assert "kl" not in found.get_smoothed_values()
    with metrics.aggregate() as found:
        assert not log_samples([{"loss": 3.0, "nsentences": 2}])  # validation's
    assert not found.get_smoothed_values()
