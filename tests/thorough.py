"""Tests that try more of a kind under `make test-thorough` (`XGPT_THOROUGH=1`) than under `make test`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import hypothesis
import pytest

THOROUGH: Final = "XGPT_THOROUGH" in os.environ

Test = TypeVar("Test", bound=Callable[..., Any])


def examples(few: int, **options: Any) -> Callable[[Test], Test]:
    """Decorates a test by @given whose examples are expensive: *few* of them, and thoroughly as many as by default.

    Args:
        few: the examples of `make test`.
        options: further ones of `hypothesis.settings`; with max_examples, that is the number of the thorough run.
    """

    def decorated(test: Test) -> Test:
        settings = hypothesis.settings(**(options if THOROUGH else options | {"max_examples": few}))
        return pytest.mark.more(settings(test))

    return decorated
