"""A small part of what `make test-faults` tries (`run.py`): each fault on one program that writes a folder."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.faults.faults import FAULTS, reference
from tests.faults.processes import can_mount
from tests.faults.programs import programs
from tests.faults.run import DISKS, import_once

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = programs()


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    import_once()


@pytest.mark.parametrize("name", ["prepare-captions", "caption --jsonl"])
def test_faults(name: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    expected: dict = {"results": reference(PROGRAMS[name], tmp_path / "reference")}
    expected["seconds"] = time.monotonic() - begin
    assert expected["results"]
    faults = [fault for fault in FAULTS if fault not in DISKS or can_mount()]
    wrong = [f"{fault}: {each}" for fault in faults for each in FAULTS[fault](PROGRAMS[name], tmp_path / "w", expected)]
    assert not wrong


def test_every_promise_names_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8") if test else (ROOT / file).is_file(), test
