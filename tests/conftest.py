"""What all tests share: where the real data lies, and the programs of preprocess/ on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "preprocess"))

# Two cores, two test processes: threads of their own would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEST_DATA = Path(os.environ.get("XGPT_TEST_DATA", ROOT.parent / "shared"))


def _real_data(name: str) -> Path:
    path = TEST_DATA / name
    if not path.is_dir():
        pytest.skip(f"real data {name} not found in {TEST_DATA}; set XGPT_TEST_DATA to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """517 COCO photos: captions, per-image region features of width 1280, boxes."""
    return _real_data("coco_mini")


@pytest.fixture(scope="session")
def butd_tsv() -> Path:
    """Five COCO photos with bottom-up-attention features of width 2048 in a TSV."""
    return _real_data("butd_tsv")
