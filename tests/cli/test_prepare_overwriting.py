"""What no program that prepares data replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.cli import prepare_captions, prepare_text


@pytest.mark.parametrize("make", ["folder", "file"])
@pytest.mark.parametrize("kind", ["captions", "text"])
def test_what_is_no_data_directory_is_not_replaced(
    call_program: Callable[..., Any], tiny_captions: Path, tiny_vocabulary: Path, tiny_store: Path, tmp_path: Path,
    kind: str, make: str,
) -> None:  # fmt: skip
    mine = tmp_path / "data" / "thesis.tex" if make == "folder" else tmp_path / "data"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    options = ["--vocabulary", tiny_vocabulary, "--output", tmp_path / "data", "--overwrite"]
    if kind == "captions":
        done = call_program(prepare_captions.main, tiny_captions, "--regions", tiny_store, *options)
    else:
        done = call_program(prepare_text.main, "--input", tiny_captions, "--valid-lines", 4, *options)
    assert done.status == 1
    assert "is not a data directory (it has no dataset.json): it is not replaced" in done.error
    assert mine.read_text() == "mine"
