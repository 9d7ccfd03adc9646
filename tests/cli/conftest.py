"""What tests of several programs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.cli import prepare_captions


@pytest.fixture
def prepare(
    call_program: Callable[..., Any], tiny_captions: Path, tiny_vocabulary: Path, tiny_store: Path, tmp_path: Path
) -> Callable[..., Any]:
    """prepare(*options): the tiny captions to tmp_path/data, options coming last and winning."""

    def call(*options: object, source: Path = tiny_captions) -> Any:
        arguments = [source, "--vocabulary", tiny_vocabulary, "--regions", tiny_store, "--output", tmp_path / "data"]
        return call_program(prepare_captions.main, *arguments, *options)

    return call
