"""What the tests of region stores share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.regions.stores import write_store


@pytest.fixture(scope="module")
def no_fsync() -> Iterator[None]:
    """For tests that are not about power failures: fsync is most of the time of writing a small store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return write_store(tmp_path / "regions")
