"""The weights of all objectives act, through the recipe's own script."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.end_to_end.programs import ROOT, SMALL, run

SIZES = {"GPUS": "0", "BATCH": "8", "WORKERS": "0", "ARCH": "xgpt_demo"}


def test_the_weight_of_tifg_moves_the_model(tiny_data: Path, tmp_path: Path) -> None:
    program = [sys.executable, ROOT / "examples/ablations/weight_effect.py", "--data", tiny_data]
    done = run(*program, "--output", tmp_path, "--objectives", "imlm,tifg", "--iterations", "4", "--", *SMALL, **SIZES)
    imlm, tifg = (float(value) for value in re.findall(r"against 0\.3: ([\d.]+)", done.stdout))
    assert imlm > 0 and tifg > imlm / 5
    refused = run(*program, "--output", tmp_path, "--objectives", "itm", check=False)
    assert refused.returncode == 1 and "--objectives: unknown objective 'itm'" in refused.stderr
