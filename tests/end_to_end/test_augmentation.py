"""From a model to training on captions that it generated, through the real programs; and killed on the way."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.cli.test_augment import learned
from tests.end_to_end.programs import ROOT, logged, run, train
from tests.folders import contents
from xgpt_fairseq.cli import augment as program
from xgpt_fairseq.data.directory import DataDirectory

# The program, killed as by the system for want of memory when it begins its third batch.
KILLED = """
import os, signal
from xgpt_fairseq.augmentation import generate as draw
from xgpt_fairseq.cli import augment

def generate_batch(*args, stock=draw.generate_batch, left=[1, 2], **options):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    return stock(*args, **options)

draw.generate_batch = generate_batch
augment.main()
"""


def test_a_killed_run_goes_on_and_fairseq_trains_on_the_result(tiny_data: Path, tmp_path: Path, call_program) -> None:
    learned(tiny_data).save(tmp_path / "bundle")
    command = [tiny_data, "--path", tmp_path / "bundle", "--batch-size", "2", "--device", "cpu", "--per-image", "2.5"]
    # the names of both are alike and as deep: the region store is named relative to the directory
    output = tmp_path / "new" / "data"
    killed = run(sys.executable, "-c", KILLED, *command, "--output", output, check=False, PYTHONPATH=str(ROOT))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    partial = output.parent / ".data.partial"
    assert [path.name for path in output.parent.iterdir()] == [partial.name]
    assert (partial / "generated.jsonl").read_text().count("\n") == 4

    for folder in ("new", "whole"):
        done = call_program(program.main, *command, "--output", tmp_path / folder / "data")
        assert done.status == 0, done.stderr
    assert contents(output) == contents(tmp_path / "whole" / "data")
    assert [path.name for path in output.parent.iterdir()] == ["data"]

    captions = len(DataDirectory(output).captions("train"))
    assert captions == len(DataDirectory(tiny_data).captions("train")) + 20
    log = train(output, tmp_path / "checkpoints", "--max-epoch", "1").stdout
    [updates] = logged(log, "num_updates", "train")
    assert updates >= captions / 16  # of at most 16 captions each
    assert logged(log, "loss", "valid")
