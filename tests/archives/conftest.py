"""What tests of archives share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archives import layouts
from tests.archives.breaking import IMAGES, Fails
from xgpt_fairseq.archives.handle_cache import close_cached
from xgpt_fairseq.cli import import_regions


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    close_cached()


@pytest.fixture
def fails(call_program: Callable[..., Any], tmp_path: Path) -> Fails:
    """fails(source, *options): the error of the import, the same with and without worker processes."""
    sizes = layouts.write_sizes(tmp_path / "sizes.json", IMAGES)

    def call(source: Path, *options: object) -> str:
        errors = set()
        for workers in (0, 2):
            store = tmp_path / f"store{workers}"
            outcome = call_program(
                import_regions.main, source, "--output", store, "--sizes", sizes, "--workers", workers, *options
            )
            assert outcome.status == 1
            assert not store.exists()
            errors.add(outcome.error.replace(str(tmp_path), ""))
        [error] = errors
        return error

    return call


@pytest.fixture
def import_archive(call_program: Callable[..., Any]) -> Callable[..., Any]:
    """import_archive(source, store, *options): the program, in this process."""

    def call(source: Path, store: Path, *options: object) -> Any:
        return call_program(import_regions.main, source, "--output", store, *options)

    return call
