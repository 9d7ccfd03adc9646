"""Options of a search that fairseq would find wrong at its first batch, or never."""

from __future__ import annotations

from argparse import Namespace

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.search_checks import check_search


@pytest.mark.parametrize(
    "options",
    [
        {}, {"beam": 4, "diverse_beam_groups": 2}, {"beam": 3, "nbest": 3}, {"min_len": 59},
        {"min_len": 5, "max_len_b": 5}, {"no_early_stop": True}, {"max_len_a": 1, "max_len_b": 0, "min_len": 3},
        {"constraints": "ordered", "diverse_beam_groups": -1, "diversity_rate": -1.0},
        {"sampling": True, "constraints": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_right_passes(options: dict[str, object]) -> None:
    check_search(Namespace(**options), max_positions=60)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "--beam must be at least 1"),
        ({"beam": 2, "nbest": 0}, "--nbest must be at least 1"),
        ({"beam": 2, "nbest": 3}, "--nbest 3 needs as many hypotheses: pass --beam 3 or more, not 2"),
        ({"beam": 5, "diverse_beam_groups": 2}, "--beam 5 cannot be divided into --diverse-beam-groups 2"),
        ({"min_len": 70}, "--min-len 70 is more than the longest caption, of 59 tokens"),
        ({"min_len": 9, "max_len_b": 5}, "--min-len 9 is more than the longest caption, of 5 tokens"),
        ({"no_repeat_ngram_size": -1}, "--no-repeat-ngram-size must be at least 0 (0: off), got -1"),
        ({"no_early_stop": True, "prefix_size": 1}, "--no-early-stop is for plain beam search"),
        ({"match_source_len": True}, "--match-source-len would give a caption as many tokens as its image has regions"),
        ({"constraints": "ordered", "sampling": True}, "--constraints is a search of its own: leave --sampling out"),
        ({"constraints": "unordered", "beam": 4, "diverse_beam_groups": 2}, "leave --diverse-beam-groups out"),
        ({"constraints": "ordered", "diversity_rate": 0.5}, "leave --diversity-rate out"),
        ({"retain_dropout": True}, "--retain-dropout has no effect"),
        ({"retain_dropout_modules": ["decoder"]}, "--retain-dropout has no effect"),
        ({"retain_iter_history": True}, "--retain-iter-history is for models that refine"),
        ({"print_step": True}, "--print-step is for models that refine"),
        ({"print_alignment": "hard"}, "--print-alignment: captions have no source words"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_search(Namespace(**options), max_positions=60)
    assert message in str(caught.value)
