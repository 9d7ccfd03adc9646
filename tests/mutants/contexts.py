"""A plugin of pytest: coverage notes which test runs a line; what runs outside tests' bodies is no test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from coverage import Coverage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    coverage = Coverage.current()
    assert coverage is not None
    coverage.switch_context(item.nodeid.split("[")[0])
    try:
        return (yield)
    finally:
        coverage.switch_context("")
