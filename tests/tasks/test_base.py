"""What all tasks do with fairseq's own options of batches."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import save_checkpoint
from fairseq.data.iterators import BackgroundConsumer
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.tasks import FairseqTask
from omegaconf import OmegaConf

from xgpt_fairseq import whole_checkpoints
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks import base
from xgpt_fairseq.tasks.xgpt_pretrain import XGPTPretrainConfig, XGPTPretrainTask


def root_of(data: Path, *, max_valid_steps: int | None = None, save_dir: Path | None = None, **options: Any) -> Any:
    """A run's configuration, as far as a task asks for it."""
    resolved = {"seed": 1, "update_freq": [1], "train_subset": "train", "best_checkpoint_metric": "loss", **options}
    given = {**vars(XGPTPretrainConfig(data=str(data))), **resolved}
    task = {name: value for name, value in given.items() if "${" not in str(value)}
    dataset = {"max_valid_steps": max_valid_steps}
    checkpoint = CheckpointConfig(save_dir=str(save_dir)) if save_dir else {}
    return OmegaConf.create({"task": task, "dataset": dataset, "checkpoint": checkpoint})


def validate(task: XGPTPretrainTask, steps: int, **shard: int) -> list[str]:
    """A validation as fairseq's trainer does it. Returns the objectives of its batches."""
    iterator = task.get_batch_iterator(
        task.dataset("valid"), max_sentences=1, max_positions=(1000, 60), data_buffer_size=1, **shard
    )
    seen = []
    for i, batch in enumerate(iterator.next_epoch_itr(shuffle=False, set_dataset_epoch=False)):
        if i > steps:
            break
        seen.append(batch["objective"])
    return seen


def consumers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if isinstance(each, BackgroundConsumer)]


@pytest.mark.parametrize(
    ("program", "world", "steps", "expected"),
    [
        ("fairseq-train", 1, 3, ["ic", "imlm", "ida"]),
        ("fairseq-hydra-train", 2, 2, ["ic", "imlm"]),
        ("fairseq-train", 1, 100, 2 * ["ic", "imlm", "ida", "tifg"]),
        ("fairseq-validate", 1, 100, 2 * ["ic", "imlm", "ida", "tifg"]),
    ],
    ids=str,
)
def test_a_validation_of_a_few_batches_leaves_no_thread_behind(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, program: str, world: int, steps: int, expected: list[str]
) -> None:
    """Two images of four objectives. fairseq's own loop leaves its iterator where it is."""
    monkeypatch.setattr(base, "fairseq_program", lambda: program)
    root = root_of(tiny_data, max_valid_steps=1 if program == "fairseq-validate" else steps)
    before = consumers()
    for rank in range(world):
        task = XGPTPretrainTask(root.task, DataDirectory(tiny_data))
        task.load_dataset("valid", epoch=1)
        for _ in range(2):
            assert validate(task, steps, num_shards=world, shard_id=rank) == expected
    for each in set(consumers()) - set(before):
        each.join(timeout=5)
    assert not set(consumers()) - set(before)


@pytest.mark.parametrize(
    ("options", "refused"),
    [({}, "tifg"), ({"objectives": "ida,ic"}, "ic"), ({"objectives": "ic"}, None),
     ({"objective_schedule": "joint"}, None)],
    ids=str,
)  # fmt: skip
def test_no_objective_may_lose_its_update_at_the_end_of_an_epoch(
    tiny_data: Path, options: dict[str, Any], refused: str | None
) -> None:
    task = XGPTPretrainTask(root_of(tiny_data, **options).task, DataDirectory(tiny_data))
    task.load_dataset("train", epoch=1)
    train = partial(task.get_batch_iterator, task.dataset("train"), max_sentences=4, skip_remainder_batch=True)
    if refused is None:
        assert train().next_epoch_itr().has_next()
        return
    with pytest.raises(DataError, match=f"--skip-remainder-batch would .* of the objective {refused}; leave it out"):
        train()


@pytest.mark.parametrize("captions_per_image", [1, 5])
def test_no_batch_of_an_epoch_is_larger_than_its_limits(tiny_data: Path, captions_per_image: int) -> None:
    """Nor those of the last update, which share out what is left: images are padded to regions, captions to tokens."""
    root = root_of(tiny_data, objectives="ic", update_freq=[8], captions_per_image=captions_per_image)
    task = XGPTPretrainTask(root.task, DataDirectory(tiny_data))
    task.load_dataset("train", epoch=1)
    iterator = task.get_batch_iterator(task.dataset("train"), max_tokens=80, max_sentences=4, max_positions=(1000, 60))
    for _ in range(20):
        sizes = []
        for batch in iterator.next_epoch_itr():
            regions, target = batch["net_input"]["features"], batch["target"]
            sizes.append(len(target))
            assert regions.shape[0] * regions.shape[1] + target.numel() <= 80
        assert max(sizes) <= 4 and sum(sizes) == len(task.dataset("train")) and len(sizes) % 8 == 0


def test_the_best_checkpoint_stays_where_nothing_is_saved(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--no-epoch-checkpoints --no-last-checkpoints, and a validation that is not the best."""
    monkeypatch.setattr(FairseqTask, "train_step", lambda *_: None)
    task = XGPTPretrainTask(root_of(tiny_data, save_dir=tmp_path).task, DataDirectory(tiny_data))
    trainer = SimpleNamespace(
        task=task, data_parallel_rank=0, should_save_checkpoint_on_current_rank=True, checkpoint_suffix="",
        consolidate_optimizer=lambda: None, get_num_updates=lambda: 7,
        save_checkpoint=lambda name, _: (Path(name).write_text("whole"), name)[1],
    )  # fmt: skip
    iterator = SimpleNamespace(epoch=1, end_of_epoch=lambda: True, state_dict=dict)
    cfg = CheckpointConfig(save_dir=str(tmp_path), no_epoch_checkpoints=True, no_last_checkpoints=True)
    monkeypatch.setattr(whole_checkpoints, "_is_whole", Path.exists)
    monkeypatch.setattr(save_checkpoint, "best", 3.0, raising=False)
    assert save_checkpoint(cfg, trainer, iterator, 2.0)
    task.post_save(str(tmp_path / "checkpoint_best.pt"), 7)
    assert save_checkpoint(cfg, trainer, iterator, 5.0) is None
    task.train_step({"objective": "ic"}, None, None, None, 7)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint_best.pt"]


def test_a_batch_that_does_not_fit_the_gpu_ends_the_training(tiny_data: Path) -> None:
    """fairseq would leave it out, and train on: if none fits, without an update and without an end."""

    class Large(torch.nn.Module):
        def set_num_updates(self, _: int) -> None: ...

        def forward(self) -> None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    task = XGPTPretrainTask(root_of(tiny_data).task, DataDirectory(tiny_data))
    with pytest.raises(DataError, match="the GPU's memory is full: halve --batch-size"):
        task.train_step({"objective": "ic"}, Large(), lambda model, _: model(), None, 0)


@pytest.mark.parametrize("skip", [False, True])
def test_validation_lacks_no_item_unless_it_is_asked_for(tiny_data: Path, skip: bool) -> None:
    """An image with one caption too long would be missing, also in cider."""
    task = XGPTPretrainTask(root_of(tiny_data).task, DataDirectory(tiny_data))
    task.load_dataset("valid", epoch=1)
    dataset = task.dataset("valid")
    shorter, longest = sorted(dataset.sizes.tolist())
    assert shorter < longest
    iterator = task.get_batch_iterator(
        dataset, max_sentences=4, max_positions=(1000, shorter), ignore_invalid_inputs=skip
    )
    if skip:
        assert {tuple(batch["id"].tolist()) for batch in iterator.next_epoch_itr()} == {(dataset.sizes.argmin(),)}
        return
    with pytest.raises(DataError) as caught:
        iterator.next_epoch_itr()
    assert str(caught.value) == (
        f"split 'valid': 1 of 2 items have a text longer than the model's --max-target-positions {shorter}, the "
        f"longest {longest} tokens with the end of sentence: train with --max-target-positions {longest}, or prepare "
        f"the data with --max-tokens {shorter}. --skip-invalid-size-inputs-valid-test leaves these items out"
    )
