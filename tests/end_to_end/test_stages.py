"""From text pre-training to captions, each stage started from the one before, through the real programs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.programs import PLUGIN, generate, generated, logged, run, train
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter

TEXT = ["--task", "xgpt_text_pretrain", "--batch-size", "8"]


def test_text_then_images_then_captions(tiny_text_data: Path, tiny_data: Path, tmp_path: Path) -> None:
    text = train(tiny_text_data, tmp_path / "text", *TEXT, "--max-epoch", "4", "--num-workers", "2").stdout
    for name in ("mlm", "mass"):
        losses = logged(text, f"{name}_nll_loss", "train")
        assert len(losses) == 4 and losses[-1] < losses[0]
        assert len(logged(text, f"{name}_ppl", "valid")) == 4
        assert logged(text, f"{name}_updates", "train")[0] > 0
    state = load_checkpoint(tmp_path / "text" / "checkpoint_last.pt")["model"]
    assert not [name for name in state if "region" in name or "alignment" in name]

    images = train(
        tiny_data, tmp_path / "images", "--task", "xgpt_pretrain", "--max-epoch", "1",
        "--finetune-from-model", tmp_path / "text" / "checkpoint_last.pt",
    ).stdout  # fmt: skip
    assert re.search(r"parameters reused: \d+ \(dictionary_digest, structure, encoder.text.tokens.weight", images)
    assert re.search(r"parameters new: \d+ \(encoder.regions.embedding.project.weight", images)
    assert "parameters dropped: 0 (none)" in images

    captions = train(
        tiny_data, tmp_path / "captions", "--max-update", "2",
        "--finetune-from-model", tmp_path / "images" / "checkpoint_last.pt",
    ).stdout  # fmt: skip
    assert "parameters new: 0 (none)" in captions
    assert "parameters dropped: 3 (heads.tifg.start, heads.tifg.output.weight, heads.tifg.output.bias)" in captions
    assert "WARNING" not in text + images + captions
    generate(tiny_data, tmp_path / "captions" / "checkpoint_last.pt", tmp_path, "--beam", "2")
    assert generated(tmp_path)

    refused = generate(tiny_data, tmp_path / "text" / "checkpoint_last.pt", tmp_path / "no", check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: the checkpoint has no image parts")


def test_a_stage_on_features_of_another_scale_is_warned_about(
    tiny_data: Path, tiny_store: Path, tmp_path: Path
) -> None:
    """Once, where it starts; not where it is resumed."""
    store = RegionStore(tiny_store)
    with RegionWriter(tmp_path / "large.regions", store.feature_dim) as writer:
        for row in range(len(store)):
            features = 10 * store.features(row).astype(np.float32)
            writer.add(store.image_id(row), features, store.boxes(row), position=row + 1)
        writer.finish()
    train(tiny_data, tmp_path / "stage", "--max-update", "1")
    options = ["--finetune-from-model", tmp_path / "stage" / "checkpoint_last.pt", "--regions",
               tmp_path / "large.regions", "--save-dir", tmp_path / "next"]  # fmt: skip
    warning = f"the region store {tmp_path / 'large.regions'} are far from those that {options[1]} was trained on"
    for last_update, warned in ((1, 1), (2, 0)):
        log = train(tiny_data, tmp_path / "next", *options, "--max-update", last_update).stdout
        assert log.count("WARNING") == log.count(warning) == warned
        assert ("Loaded checkpoint" in log) and (f"num_updates {last_update}" in log)


def test_text_in_epochs_of_a_part_of_the_corpus(tiny_text_data: Path, tmp_path: Path) -> None:
    log = train(tiny_text_data, tmp_path, *TEXT, "--sentences-per-epoch", "8", "--max-epoch", "3").stdout
    assert logged(log, "mlm_updates", "train") == [1, 1, 1]  # 8 sentences are one batch, a turn of each objective


@pytest.mark.thorough  # as `test_mistakes.py` says other starts that are none
def test_a_start_that_is_not_there_is_said_in_a_line(tiny_text_data: Path, tmp_path: Path) -> None:
    failed = train(tiny_text_data, tmp_path, *TEXT, "--finetune-from-model", "nowhere.pt", check=False)
    assert failed.returncode != 0
    assert failed.stderr.splitlines()[-1] == "error: --finetune-from-model nowhere.pt does not exist"


def test_joint_text_pretraining_by_hydra(tiny_text_data: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"""# @package _global_
common: {{cpu: true, user_dir: {PLUGIN}, log_format: simple}}
task: {{_name: xgpt_text_pretrain, data: {tiny_text_data}, objective_schedule: joint}}
model: {{_name: xgpt_demo, hidden_size: 32, attention_heads: 2, ffn_size: 64, layers: 1}}
criterion: {{_name: xgpt}}
dataset: {{batch_size: 8}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
optimization: {{max_update: 2, lr: [0.001]}}
checkpoint: {{save_dir: {tmp_path / "checkpoints"}}}
"""
    )
    run("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "recipe", cwd=tmp_path)
    log = load_checkpoint(tmp_path / "checkpoints" / "checkpoint_last.pt")
    assert log["optimizer_history"][-1]["num_updates"] == 2
