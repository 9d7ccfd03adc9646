"""The parts of the quickstart: progress, the table, and the whole of it on tiny scenes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.programs import path
from tests.scripts import example
from xgpt_fairseq.captions.references import References

report = example("quickstart/report.py")

QUICKSTART = Path(report.__file__).parent

LINES = """\
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     10 / 96 loss=7, mlm_nll_loss=6.5, mass_nll_loss=7.25, num_updates=10, lr=0.0001
2026-01-01 00:00:01 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 6 | cider 0.1234 | num_updates 10
2026-01-01 00:00:02 | INFO | train_inner | epoch 001:     20 / 96 loss=6, ic_nll_loss=5.5, tifg_mse=81.5, reward=0.717, num_updates=20, lr=0.0002
"""  # noqa: E501  (fairseq's lines)


def progress(text: str, log: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, QUICKSTART / "progress.py", "--name", "stage", "--updates", "20", "--log", log]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_progress_shows_updates_losses_and_scores_and_keeps_the_log(tmp_path: Path) -> None:
    shown = progress(LINES + "average of 4 written to x/averaged.pt\n", tmp_path / "log")
    assert shown.returncode == 0
    bar = shown.stderr.split("\r")[-1]
    assert "stage: 100%" in bar and "20/20" in bar
    assert "mlm=6.5, mass=7.25, CIDEr=12.3, ic=5.5, tifg=81.5, reward=0.717" in bar
    progress("done: x/averaged.pt\n", tmp_path / "log")
    assert (tmp_path / "log").read_text() == LINES + "average of 4 written to x/averaged.pt\ndone: x/averaged.pt\n"


def test_progress_shows_why_a_stage_failed(tmp_path: Path) -> None:
    shown = progress(LINES + "error: the disk is full\n", tmp_path / "log")
    assert shown.returncode == 1 and "error: the disk is full" in shown.stderr


def test_a_persons_score_is_the_mean_over_held_back_captions() -> None:
    captions = {"1": ["a red ball", "one red ball", "the ball"], "2": ["a blue cup", "one cup", "cup", "a cup of tea"]}
    turns = list(report.held_back(References(Path("test.json"), captions)))
    assert [spoken for spoken, _ in turns] == [
        {"1": "a red ball", "2": "a blue cup"},
        {"1": "one red ball", "2": "one cup"},
        {"1": "the ball", "2": "cup"},
    ]
    assert turns[1][1].captions == {"1": ["a red ball", "the ball"], "2": ["a blue cup", "cup", "a cup of tea"]}


@pytest.mark.parametrize(("left_out", "ratio"), [("BLEU@4", 1), ("CIDEr", 0)])
def test_scores_that_were_left_out(
    call_program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left_out: str, ratio: int
) -> None:
    """By METRICS."""
    images = {"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "caption": "a ball"}]}
    (tmp_path / "test.references.json").write_text(json.dumps(images))
    (tmp_path / "finetune").mkdir()
    scores = {name: 0.5 for name in report.METRICS if name != left_out}
    (tmp_path / "finetune" / "scores-test.json").write_text(json.dumps({"scores": scores}))
    monkeypatch.setattr(report, "human_scores", lambda _: dict.fromkeys(report.METRICS, 1.0))
    done = call_program(report.main, "--results", tmp_path, "--data", tmp_path)
    assert done.status == 0, done.stderr
    cells = {line[:26].strip(): line[26:].split() for line in done.stdout.splitlines()[2:5]}
    assert cells[""] == list(report.METRICS)
    assert cells["fine-tuned"] == ["–" if name == left_out else "50.0" for name in report.METRICS]
    assert cells["a held-back human caption"] == ["100.0"] * 3
    assert done.stdout.count("CIDEr fine-tuned / human: 0.50") == ratio


def test_an_image_with_one_caption_has_no_held_back_one(tmp_path: Path) -> None:
    with pytest.raises(report.DataError, match="an image has one caption"):
        next(report.held_back(References(Path("test.json"), {"1": ["a ball"]})))


TINY = {
    "ARCH": "xgpt_demo", "BATCH": "8", "WORKERS": "0", "TEXT_LINES": "300", "SYMBOLS": "120", "TEXT_ITERATIONS": "8",
    "WEB_ITERATIONS": "2", "IN_DOMAIN_ITERATIONS": "2", "FINETUNE_ITERATIONS": "6", "VALIDATIONS": "2",
    "VALID_LINES": "20",
    "SCENES": "--web-train 8 --web-val 2 --train 8 --val 2 --test 6 --unseen 5",
    "TRAINING": "--layers 1 --hidden-size 32 --ffn-size 64 --attention-heads 2", "CUDA_VISIBLE_DEVICES": "",
    "METRICS": "bleu,rouge,cider",
}  # fmt: skip


def test_a_killed_quickstart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """On tiny scenes: killed in the first training, it skips what was done, resumes that, and ends with everything."""
    environment = {**os.environ, **TINY, "WORK": str(tmp_path), "OMP_NUM_THREADS": "1", "PATH": path()}
    command = ["bash", str(QUICKSTART / "run.sh")]
    with open(tmp_path / "first.log", "w") as log:
        first = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        training = tmp_path / "logs" / "text.log"
        deadline = time.monotonic() + 300
        # said when all copies of a checkpoint are written, checkpoint_last.pt among them
        while not (training.exists() and "Saved checkpoint" in training.read_text()) and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert "Saved checkpoint" in training.read_text(), (tmp_path / "first.log").read_text()
    assert not (tmp_path / "checkpoints" / "text" / "averaged.pt").exists()
    regions = (tmp_path / "regions" / "store.json").stat().st_mtime_ns

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "regions" / "store.json").stat().st_mtime_ns == regions
    text = (tmp_path / "logs" / "text.log").read_text()
    assert re.search(r"Loaded checkpoint \S+/text/checkpoint_last.pt \(epoch \d+ @ (8|16) updates\)", text)
    for subset, images in (("test", 6), ("unseen", 5)):
        assert f"{subset}: {images} images, scores × 100" in done.stdout
        rows = re.search(rf"{subset}: \d+ images.*?CIDEr fine-tuned / human: ([\d.]+)", done.stdout, re.DOTALL)
        assert rows and "a held-back human caption" in rows[0]
    # the killed stage alone was resumed; the validation of an average is no part of a run
    assert re.findall(r"^(\w+): went back", done.stdout + done.stderr, re.MULTILINE) in (["text"], [])
    assert "out-of-domain" in done.stdout and "in-domain" in done.stdout
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "captions.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 6
    photos = sorted((QUICKSTART / "photos").glob("*.jpg"))
    assert len(photos) == 6 and all(re.search(rf"^{re.escape(str(photo))}\t\w", done.stdout, re.M) for photo in photos)
    assert (tmp_path / "photos.html").read_text(encoding="utf-8").count("data:image/jpeg") == 6


def test_photos_without_captions_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(QUICKSTART / "run.sh"), str(tmp_path)],
        env={**os.environ, "PATH": path(), "WORK": str(tmp_path / "work")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} holds no captions of a known format: neither a file such as")
