"""What 0_prepare.sh refuses before anything is imported."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.programs import ROOT

SCRIPT = ROOT / "examples" / "xgpt_base" / "0_prepare.sh"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "nothing to prepare: set TEXT, or NAME_REGIONS and NAME_CAPTIONS of CC, COCO or FLICKR30K"),
        ({"CC_CAPTIONS": "cc.tsv"}, "CC needs CC_REGIONS and CC_CAPTIONS, both; one of them is not set"),
        ({"COCO_REGIONS": "coco"}, "COCO needs COCO_REGIONS and COCO_CAPTIONS, both; one of them is not set"),
        ({"CC_SIZES": "cc.json"}, "CC needs CC_REGIONS and CC_CAPTIONS, both; one of them is not set"),
        (
            {"CC_REGIONS": "cc", "CC_CAPTIONS": "cc.tsv"},
            "data/vocabulary is not there, and TEXT, from which it is learned, is not set",
        ),
        ({"TEXT": "wiki", "CC_REGIONS": "cc", "CC_CAPTIONS": "none.tsv"}, "CC_CAPTIONS: none.tsv is not there"),
        (
            {"TEXT": "wiki", "CC_REGIONS": "cc", "CC_CAPTIONS": "train=cc.tsv", "CC_SIZES": "none.json"},
            "CC_SIZES: none.json is not there",
        ),
    ],
)
def test_refused_before_the_import(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "cc.tsv").touch()
    done = subprocess.run(
        ["bash", SCRIPT], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert not (tmp_path / "data").exists()
