"""What is known of SCST's samples."""

from __future__ import annotations

import pytest

from tests.criterions.test_xgpt_scst import ToyVocabulary
from xgpt_fairseq.criterions.scst_log import SampleLog
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
