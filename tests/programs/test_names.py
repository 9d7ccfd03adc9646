"""Which program this is."""

from __future__ import annotations

import sys

import pytest

from xgpt_fairseq.programs.names import fairseq_program, trains


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/venv/bin/fairseq-train", "data"], "fairseq-train"),
        (["/site-packages/fairseq_cli/train.py"], "fairseq-train"),
        (["/site-packages/fairseq_cli/hydra_train.py"], "fairseq-hydra-train"),
        (["/site-packages/fairseq_cli/eval_lm.py"], "fairseq-eval-lm"),
        (["fairseq-generate"], "fairseq-generate"),
        (["/venv/bin/xgpt-caption"], None),
        (["-c"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_program(argv: list[str], name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert fairseq_program() == name


def test_programs_that_train() -> None:
    assert trains("fairseq-train") and trains("fairseq-hydra-train")
    assert not trains("fairseq-generate") and not trains(None)
