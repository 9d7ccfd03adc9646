"""Options of the objectives: which values are refused, at the edges, too."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tests.objectives.batches import SYMBOLS
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import ALL_OBJECTIVES, check_options, option_fields

# option → the values at its edges: those that are possible, those that are not, and what is said of these
A_PART = ([0.001, 0.999], [0, 1, -0.1, 1.5], "between 0 and 1")
OPTIONS: dict[str, tuple[list[Any], list[Any], str]] = {
    "ic_word_dropout": ([0.0, 0.999], [1.0, -0.1, float("nan")], "at least 0 and below 1"),
    "imlm_fragment_ratio": A_PART,
    "ida_mask_ratio": A_PART,
    "ida_spans": (["poisson", "one"], ["two", ""], "one of poisson, one"),
    "ida_placeholder": (["single", "multi"], ["none", ""], "one of single, multi"),
    "ida_keep_regions": ([False, True], [], ""),
    "tifg_regions": ([1, 100], [0, -1], "at least 1"),
    "tifg_reduction": (["mean", "sum"], ["max"], "one of mean, sum"),
    "tifg_target": (["embedding", "feature"], ["box"], "one of embedding, feature"),
    "mlm_mask_ratio": A_PART,
    "mass_fragment_ratio": A_PART,
}


def test_all_options_are_here() -> None:
    declared = [f"{name}_{each.name}" for name, kind in ALL_OBJECTIVES.items() for each in fields(kind.Options)]
    assert sorted(declared) == sorted(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_values_at_the_edges(option: str) -> None:
    """Of an objective that trains, and of one that only could (`check_options`)."""
    name, _, field = option.partition("_")
    possible, impossible, rule = OPTIONS[option]
    for value in possible:
        assert vars(ALL_OBJECTIVES[name](SYMBOLS, **{field: value}).options)[field] == value
        check_options([name], {option: value})
    for value in impossible:
        said = rf"^--{option.replace('_', '-')} must be {rule}, got {value}$"
        with pytest.raises(DataError, match=said):
            ALL_OBJECTIVES[name](SYMBOLS, **{field: value})
        with pytest.raises(DataError, match=said):
            check_options([name], {option: value})


def test_the_tasks_fields_have_the_same_choices() -> None:
    for option, kind, _ in option_fields(ALL_OBJECTIVES.values()):
        possible, _, rule = OPTIONS[option]
        if rule.startswith("one of"):
            assert [str(choice) for choice in kind] == possible
        else:
            assert kind is type(possible[0])
