"""Numbers that programs do not take: a line that names the option, before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from xgpt_fairseq.cli import caption_text, diagnose, import_regions

IMPORT = (import_regions.main, "archive.tsv", "--output", "store")


@pytest.mark.parametrize(
    ("command", "option", "least"),
    [
        ((caption_text.main, "--output", "text", "--exclude-nothing", "--limit", 5), "--seed", 0),
        ((diagnose.main, "checkpoint.pt", "data"), "--seed", 0),
        (IMPORT, "--limit", 1),
        (IMPORT, "--max-regions", 1),
    ],
)
def test_too_small(call_program: Callable[..., Any], command: tuple[Any, ...], option: str, least: int) -> None:
    done = call_program(*command, option, least - 1)
    assert (done.status, done.error) == (1, f"{option} must be at least {least}, got {least - 1}")


def test_no_number(call_program: Callable[..., Any]) -> None:
    done = call_program(*IMPORT, "--limit", "x")
    assert done.status == 2 and done.stderr.startswith("program: error: argument --limit: invalid int value: 'x'\n")
