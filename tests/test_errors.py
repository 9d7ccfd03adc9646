"""Checks of options."""

from __future__ import annotations

import pytest

from xgpt_fairseq.errors import DataError, check_at_least


def test_an_option_that_is_too_small():
    for value in (1, 2, 1.5, None):
        check_at_least("--beam", value, 1)
    with pytest.raises(DataError) as caught:
        check_at_least("--beam", 0, 1)
    assert str(caught.value) == "--beam must be at least 1, got 0"
    with pytest.raises(DataError) as caught:
        check_at_least("--max-tokens", 1, 2, "a token and the end of sentence")
    assert str(caught.value) == "--max-tokens must be at least 2 (a token and the end of sentence), got 1"
