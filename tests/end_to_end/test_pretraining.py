"""The four objectives in turns, through fairseq-train."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.end_to_end.programs import (
    PLUGIN,
    SMALL,
    generate,
    generated,
    logged,
    path,
    run,
    train,
    train_in_two_processes,
)
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.pages.training_log import read_training_log

PRETRAIN = ["--task", "xgpt_pretrain", "--batch-size", "4"]
NO_DROPOUT = ["--dropout", "0", "--attention-dropout", "0"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint_last.pt")["model"]


def test_four_objectives_train_validate_and_lead_to_captions(tiny_data, tmp_path):
    done = train(
        tiny_data, tmp_path / "stage1", *PRETRAIN, "--max-epoch", "3", "--eval-captions", "--tensorboard-logdir",
        tmp_path / "tb",
    )  # fmt: skip
    log = done.stdout
    assert len(logged(log, "cider", "valid")) == 3
    for name in ("ic_nll_loss", "imlm_nll_loss", "ida_nll_loss", "tifg_mse"):
        assert logged(log, name, "train")[-1] < logged(log, name, "train")[0], name
        assert len(logged(log, name, "valid")) == 3
    for name in ("ic", "imlm", "ida", "tifg"):
        updates = logged(log, f"{name}_updates", "train")
        assert len(set(updates)) == 1 and updates[0] > 0
        assert all(speed > 0 for speed in logged(log, f"{name}_pairs_per_s", "train"))
    assert len(logged(log, "imlm_ppl", "valid")) == len(logged(log, "ida_accuracy", "valid")) == 3
    assert list((tmp_path / "tb").rglob("*tfevents*"))
    (tmp_path / "train.log").write_text(log)
    [of_images] = read_training_log(tmp_path / "train.log").captions.values()
    assert len(of_images) == min(4, len(DataDirectory(tiny_data).references("valid").captions))
    ends = sorted(read_training_log(tmp_path / "train.log").valid["valid"]["cider"])
    assert all(list(said) == ends for said in of_images.values())
    events = EventAccumulator(str(tmp_path / "tb" / "valid"))
    events.Reload()
    assert {f"captions/{image}/text_summary" for image in of_images} <= set(events.Tags()["tensors"])

    # in domain, from the average, then fine-tuning on captions alone
    run("xgpt-average-checkpoints", "--checkpoints", tmp_path / "stage1", "--best", "2", "--output", tmp_path / "a.pt")
    train(
        tiny_data, tmp_path / "stage2", *PRETRAIN, "--finetune-from-model", tmp_path / "a.pt", "--max-epoch", "1",
        "--objective-weights", "ic=1,imlm=0.3,ida=0.3,tifg=0.3", "--lr", "1e-5",
    )  # fmt: skip
    stage3 = train(
        tiny_data, tmp_path / "stage3", "--finetune-from-model", tmp_path / "stage2" / "checkpoint_last.pt",
        "--max-update", "1",
    )  # fmt: skip
    assert logged(stage3.stdout, "nll_loss")[0] < logged(log, "ic_nll_loss")[0]
    generate(tiny_data, tmp_path / "stage3" / "checkpoint_last.pt", tmp_path, "--beam", "2")
    assert generated(tmp_path)


def test_joint_schedule_makes_one_update_of_all(tiny_data, tmp_path):
    log = train(
        tiny_data, tmp_path, *PRETRAIN, "--objective-schedule", "joint", "--max-update", "3", "--eval-captions",
        "--captions-per-image", "2", "--update-freq", "2",
    ).stdout  # fmt: skip
    assert [logged(log, f"{name}_updates", "train") for name in ("ic", "imlm", "ida", "tifg")] == [[3.0]] * 4
    assert logged(log, "cider", "valid")


def test_joint_batches_of_text_and_images_are_validated_by_captions(tiny_data, tmp_path):
    """The first part of the batch is text alone; what is captioned are the images of image captioning's part."""
    log = train(
        tiny_data, tmp_path, *PRETRAIN, "--objectives", "mlm,ic", "--objective-schedule", "joint", "--max-update", "2",
        "--eval-captions", "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric",
    ).stdout  # fmt: skip
    assert logged(log, "cider", "valid")


def test_every_weight_but_one_at_0_is_that_objective_alone(tiny_data, tmp_path):
    options = [*PRETRAIN, "--max-update", "5"]
    train(tiny_data, tmp_path / "zero", *options, "--objective-weights", "ic=1,imlm=0,ida=0,tifg=0")
    train(tiny_data, tmp_path / "alone", *options, "--objectives", "ic")
    train(tiny_data, tmp_path / "caption", *options, "--task", "xgpt_caption")
    zero, alone, caption = (weights(tmp_path / name) for name in ("zero", "alone", "caption"))
    assert all(torch.equal(zero[name], alone[name]) for name in zero)
    assert all(torch.equal(zero[name], caption[name]) for name in zero)


def test_two_processes_equal_one_with_update_freq_2(tiny_data, tmp_path):
    """Losses and weights to 1e-5, dropout off; the number of batches is odd, so that a block is divided anew."""
    options = [*PRETRAIN, *NO_DROPOUT, "--max-epoch", "2", "--clip-norm", "5"]
    one = train(tiny_data, tmp_path / "one", *options, "--update-freq", "2")
    two = train_in_two_processes(tiny_data, tmp_path / "two", *options, "--keep-best-checkpoints", "2")
    assert len(list((tmp_path / "two").glob("checkpoint.best_loss_*.pt"))) == 2
    assert "training on 2 devices" in two.stdout
    for name in ("loss", "ic_nll_loss", "imlm_nll_loss", "ida_nll_loss", "tifg_mse"):
        ours, theirs = logged(one.stdout, name), logged(two.stdout, name)
        assert len(ours) == len(theirs) > 4
        assert ours == pytest.approx(theirs, abs=1.01e-3)  # as printed
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-5, rtol=1e-5, msg=name)
    options[options.index("--max-epoch") + 1] = "3"
    again = train_in_two_processes(tiny_data, tmp_path / "two", *options)
    assert "Loaded checkpoint" in again.stdout and logged(again.stdout, "ic_updates", "train")


def test_a_killed_run_goes_on_to_the_same_weights(tiny_data, tmp_path):
    """SIGKILL in mid-epoch, started again: bit for bit what a run that was never stopped ends with."""
    options = [*PRETRAIN, "--max-update", "32", "--save-interval-updates", "4", "--num-workers", "1"]
    options += ["--batch-size", "8"]
    done = train(tiny_data, tmp_path / "whole", *options)
    assert len(logged(done.stdout, "loss", "train")) == 2  # it ends in the second epoch
    command = [
        "fairseq-train", str(tiny_data), "--user-dir", str(PLUGIN), "--arch", "xgpt_demo", *SMALL,
        "--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-3", "--cpu", "--log-format", "simple",
        "--log-interval", "1", "--save-dir", str(tmp_path / "killed"), *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PATH": path(), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    # at the second, fairseq has copied the first one whole: whatever the kill cuts, there is one to go on from
    for _ in range(3000):
        if len(list((tmp_path / "killed").glob("checkpoint_1_*.pt"))) >= 2:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()  # ends only when all that it started has ended, too
    again = train(tiny_data, tmp_path / "killed", *options)
    # in mid-epoch: at the end of the first epoch, it would be epoch 2
    assert re.search(r"Loaded checkpoint .*checkpoint_last\.pt \(epoch 1 @ [1-9]\d* updates\)", again.stdout)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
