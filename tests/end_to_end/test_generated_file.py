"""`generate-SPLIT.txt` has its name when it is whole, whatever ends fairseq-generate."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fairseq_cli.generate
import pytest
from omegaconf import OmegaConf

from tests.end_to_end.programs import PLUGIN, generate, path, train


@pytest.fixture(scope="module")
def captioner(tiny_data: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    options = ["--max-update", "1", "--disable-validation", "--no-epoch-checkpoints"]
    return once("captioner", lambda folder: train(tiny_data, folder, *options)) / "checkpoint_last.pt"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_part_of_it_has_another_name(
    tiny_data: Path, captioner: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [
        "fairseq-generate", tiny_data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", captioner, "--cpu",
        "--gen-subset", "train", "--batch-size", "1", "--beam", "1", "--max-len-b", "55", "--results-path", tmp_path,
    ]  # fmt: skip
    environment = {**os.environ, "PATH": path(), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True)
    while not (begun := list(tmp_path.glob("generate-train.txt.*.incomplete"))):
        assert process.poll() is None
        time.sleep(0.002)
    assert names(tmp_path) == [begun[0].name]  # also while it runs
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    aside = "generate-train.txt.incomplete"
    if number != signal.SIGKILL:
        assert f"what it has written is {tmp_path / aside}" in said
    assert names(tmp_path) == [begun[0].name if number == signal.SIGKILL else aside]
    generate(tiny_data, captioner, tmp_path, "--gen-subset", "train", "--beam", "1")
    assert "generate-train.txt" in names(tmp_path) and len(names(tmp_path)) == 2
    assert (tmp_path / "generate-train.txt").read_text().rstrip().splitlines()[-1].startswith("Generate train with")


def test_an_error_leaves_no_whole_name(tiny_data: Path, tmp_path: Path) -> None:
    done = generate(tiny_data, tmp_path / "none.pt", tmp_path / "out", "--gen-subset", "test", check=False)
    assert done.returncode == 1 and "none.pt does not exist" in done.stderr
    assert names(tmp_path / "out") == ["generate-test.txt.incomplete"]


def test_two_at_once_do_not_mix_their_lines(tiny_data: Path, captioner: Path, tmp_path: Path) -> None:
    command = [
        "fairseq-generate", tiny_data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", captioner, "--cpu",
        "--gen-subset", "train", "--batch-size", "1", "--beam", "1", "--max-len-b", "20", "--results-path", tmp_path,
    ]  # fmt: skip
    environment = {**os.environ, "PATH": path(), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert 0 in [process.wait(timeout=120) for process in both]
    captions = [line for line in (tmp_path / "generate-train.txt").read_text().splitlines() if line.startswith("D-")]
    assert len(captions) == len({line.split("\t")[0] for line in captions}) == 8


def test_fairseq_still_writes_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, fairseq writes elsewhere first, and `programs.generated_file` is no longer needed."""
    written: list[Any] = []
    monkeypatch.setattr(fairseq_cli.generate, "_main", lambda cfg, file: written.append(Path(file.name)))
    cfg = {
        "common_eval": {"path": "a.pt", "results_path": str(tmp_path)},
        "generation": {"sampling": False, "nbest": 1, "beam": 1, "replace_unk": None},
        "dataset": {"dataset_impl": None, "gen_subset": "test"},
    }
    fairseq_cli.generate.main(OmegaConf.create(cfg))
    assert written == [tmp_path / "generate-test.txt"]
