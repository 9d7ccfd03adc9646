"""The options of the task `xgpt_pretrain`."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.xgpt_pretrain import XGPTPretrainConfig, XGPTPretrainTask


def task_of(data: Path, **options: Any) -> XGPTPretrainTask:
    cfg = SimpleNamespace(**{**vars(XGPTPretrainConfig(data=str(data))), **options})
    return XGPTPretrainTask(cfg, DataDirectory(data))  # type: ignore[arg-type]


def test_the_defaults_are_the_papers(tiny_data: Path) -> None:
    """Sections 4.3 and 5.1, appendix A.2: four objectives in turns, weight 1 each, half a caption, Poisson spans."""
    task = task_of(tiny_data)
    assert task.objective_weights == {"ic": 1.0, "imlm": 1.0, "ida": 1.0, "tifg": 1.0}
    assert list(task.objectives) == ["ic", "imlm", "ida", "tifg"]
    assert not task.joint
    options = task.objectives["ida"].options
    assert (options.imlm_fragment_ratio, options.ida_mask_ratio) == (0.5, 0.3)
    assert (options.ida_spans, options.ida_placeholder, options.ida_keep_regions) == ("poisson", "single", False)


def test_weights_and_order(tiny_data: Path) -> None:
    task = task_of(tiny_data, objectives="tifg, ic,ida", objective_weights="ida=0.3,tifg=0", objective_schedule="joint")
    assert task.objective_weights == {"ic": 1.0, "ida": 0.3}
    assert list(task.objectives) == ["ic", "ida"]
    assert task.joint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": "ic,itm"}, "--objectives: unknown objective itm; known: ic, imlm, ida, tifg"),
        ({"objectives": ""}, "--objectives: unknown objective"),
        ({"objectives": "ic,ic"}, "an objective is named twice"),
        ({"objective_weights": "imlm=x"}, "--objective-weights imlm=x: expected name=number"),
        ({"objective_weights": "imlm=-1"}, "--objective-weights imlm=-1: a weight is a number of 0 or more"),
        ({"objectives": "ic", "objective_weights": "ida=1"}, "ida is not among --objectives ic"),
        ({"objective_weights": "ic=0,imlm=0,ida=0,tifg=0"}, "nothing is left to train"),
        ({"ida_mask_ratio": 1.5}, "--ida-mask-ratio must be between 0 and 1, got 1.5"),
        ({"imlm_fragment_ratio": 0.0}, "--imlm-fragment-ratio must be between 0 and 1, got 0.0"),
        ({"tifg_regions": 0}, "--tifg-regions must be at least 1, got 0"),
    ],
    ids=str,
)
def test_options_are_checked(tiny_data: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        task_of(tiny_data, **options)
