"""Values of fairseq's own options that are refused."""

from __future__ import annotations

from argparse import Namespace

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.refused import (
    check_half_precision,
    check_overridden_rate,
    check_overrides,
    check_training_options,
)

NAMES = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
PRECISIONS: dict[str, object] = dict.fromkeys(NAMES, False)
SAVING: dict[str, object] = {"optimizer_overrides": "{}", "write_checkpoints_asynchronously": False}


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ([], False), (["fp16"], False), (["bf16"], False), (["fp16", "memory_efficient_fp16"], False),
        (["fp16", "bf16"], True), (["memory_efficient_fp16", "bf16"], True), (["fp16", "memory_efficient_bf16"], True),
    ],
    ids=str,
)  # fmt: skip
def test_one_kind_of_half_precision(given: list[str], refused: bool) -> None:
    common = Namespace(**{**PRECISIONS, **dict.fromkeys(given, True)})
    if not refused:
        check_half_precision(common)
        return
    with pytest.raises(DataError, match="--fp16 and --bf16 are two kinds of half precision: leave one out"):
        check_half_precision(common)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"fp16": True, "bf16": True}, "--fp16 and --bf16 are two kinds"),
        ({"optimizer_overrides": "lr=1e-5"}, "--optimizer-overrides needs a dictionary, such as"),
        ({"write_checkpoints_asynchronously": True}, "--write-checkpoints-asynchronously (--save-async): without the"),
    ],
    ids=str,
)
def test_options_of_a_training(changes: dict[str, object], message: str | None) -> None:
    given = Namespace(**{**PRECISIONS, **SAVING, **changes})
    if message is None:
        check_training_options(given, given)
        return
    with pytest.raises(DataError) as caught:
        check_training_options(given, given)
    assert message in str(caught.value)


def test_overrides() -> None:
    check_overrides("--model-overrides", "{}")
    check_overrides("--model-overrides", "{'dropout': 0}")
    for text in ("foo", "3", "{'a':", "[1]", "{[]: 1}", "dropout=0"):
        with pytest.raises(DataError, match="--model-overrides needs a dictionary"):
            check_overrides("--model-overrides", text)


def test_a_learning_rate_that_would_not_be_overridden() -> None:
    check_overridden_rate("{'weight_decay': 0.01}", "fixed")
    check_overridden_rate("{'lr': 1e-5}", "reduce_lr_on_plateau")
    for name in ("fixed", "inverse_sqrt", "polynomial_decay"):
        with pytest.raises(DataError, match=f"lr has no effect with --lr-scheduler {name}, .* by --lr: change that"):
            check_overridden_rate("{'weight_decay': 0.01, 'lr': [1e-5]}", name)
