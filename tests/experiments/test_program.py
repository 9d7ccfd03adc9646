"""What a table asks of the quickstart."""

from __future__ import annotations

from pathlib import Path

import pytest

from xgpt_fairseq.experiments.program import run_quickstart


def test_a_trained_quickstart_is_not_asked_for_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BATCH is the table's then, which it would refuse as another than its own."""
    script = tmp_path / "run.sh"
    script.write_text('echo "${PREPARE_ONLY-}" >> "$WORK/called"\n')
    monkeypatch.setenv("WORK", str(tmp_path))
    monkeypatch.delenv("PREPARE_ONLY", raising=False)
    assert run_quickstart(script, prepare_only=False) == tmp_path
    averaged = tmp_path / "checkpoints" / "captions" / "finetune" / "averaged.pt"
    averaged.parent.mkdir(parents=True)
    averaged.touch()
    run_quickstart(script, prepare_only=False)
    assert (tmp_path / "called").read_text() == "\n1\n"
