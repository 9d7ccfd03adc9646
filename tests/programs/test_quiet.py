"""What fairseq's programs leave out of their logs."""

from __future__ import annotations

import logging
import warnings

import pytest
from omegaconf import OmegaConf
from torch import nn

from xgpt_fairseq.programs.quiet import LOGGERS, ConfigFilter, quieten

WARNED = [
    "hydra.experimental.initialize() is no longer experimental. Use hydra.initialize()",
    "\nThe version_base parameter is not specified.\nHydra will assume defaults for version 1.1.",
    "\n'config' is validated against ConfigStore schema with the same name.",
    "`torch.cuda.amp.autocast(args...)` is deprecated.",
]


def record(message: object) -> logging.LogRecord:
    return logging.LogRecord("fairseq_cli.train", logging.INFO, "", 0, message, None, None)


@pytest.mark.parametrize("shown", [False, True])
def test_configuration_and_model_are_left_out_unless_asked_for(shown: bool) -> None:
    rule = ConfigFilter()
    assert rule.filter(record(OmegaConf.create({"task": {"log_config": shown}}))) is shown
    assert rule.filter(record(nn.Linear(2, 2))) is shown
    assert rule.filter(record("begin training"))


def test_other_tasks_have_no_such_option() -> None:
    assert not ConfigFilter().filter(record(OmegaConf.create({"task": None})))
    assert not ConfigFilter().filter(record(OmegaConf.create({"task": {"_name": "translation"}})))


@pytest.mark.parametrize(("program", "level", "quiet"), [("fairseq-train", "", True), ("fairseq-train", "debug", False),
                                                         (None, "", False)])  # fmt: skip
def test_only_in_fairseq_s_programs(program, level, quiet, monkeypatch) -> None:
    monkeypatch.setenv("LOGLEVEL", level)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [list(logger.filters) for logger in loggers]
    hydra = logging.getLogger("hydra").level
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            quieten(program)
            for text in (*WARNED, "something else"):
                warnings.warn(text, stacklevel=1)
        assert [str(warning.message) for warning in caught] == [*([] if quiet else WARNED), "something else"]
        assert [len(logger.filters) - len(old) for logger, old in zip(loggers, before, strict=True)] == [quiet] * 3
    finally:
        logging.getLogger("hydra").setLevel(hydra)
        for logger, old in zip(loggers, before, strict=True):
            logger.filters[:] = old
