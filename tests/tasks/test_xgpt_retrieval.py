"""The task of retrieval: its model, its batches, what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.tasks.xgpt_retrieval import XGPTRetrievalConfig, XGPTRetrievalTask

SMALL = {"layers": 1, "hidden_size": 16, "ffn_size": 32, "attention_heads": 2}


def task_of(data: Path, **options: Any) -> XGPTRetrievalTask:
    resolved = {"seed": 1, "update_freq": [1], "train_subset": "train", "best_checkpoint_metric": "loss"}
    return XGPTRetrievalTask.setup_task(XGPTRetrievalConfig(data=str(data), **{**resolved, **options}))


def model_of(task: XGPTRetrievalTask, **options: Any) -> XGPTModel:
    return XGPTModel.build_model(XGPTConfig(**{**SMALL, **options}), task)


def batches(task: XGPTRetrievalTask, split: str, epoch: int) -> list[dict[str, Any]]:
    """What training sees in *epoch*, from the task's own iterator."""
    dataset = task.dataset(split)
    iterator = task.get_batch_iterator(dataset, max_sentences=8, max_positions=(1000, 60), seed=1, epoch=epoch)
    return list(iterator.next_epoch_itr(shuffle=False))


@pytest.mark.parametrize("option", ["hard_negative_pool", "max_negatives"])
def test_options_are_checked(tiny_data: Path, option: str) -> None:
    with pytest.raises(DataError, match=f"--{option.replace('_', '-')} must be at least 1, got 0"):
        task_of(tiny_data, **{option: 0})


@pytest.mark.parametrize("negatives", ["four-way", "in-batch"])
def test_a_batch_trains_and_is_logged(tiny_data: Path, negatives: str) -> None:
    task = task_of(tiny_data, negatives=negatives)
    model, criterion = model_of(task), XGPTCriterion(task, label_smoothing=0.0, sentence_avg=False)
    task.load_dataset("train", epoch=1)
    questions = 0
    for batch in batches(task, "train", epoch=1):
        loss, size, log = criterion(model, batch)
        loss.backward()
        assert torch.isfinite(loss) and size == log["matching_predictions"] == len(batch["choices"])
        assert log["matching_pairs"] == log["nsentences"] == len(batch["net_input"]["src_tokens"])
        assert 0 <= int(log["matching_correct"]) <= size
        questions += size
    captions = len(task.dataset("train"))
    # in the batch of 8 a question a caption and one an image; some batches are smaller
    assert questions == captions if negatives == "four-way" else captions < questions <= 2 * captions
    assert model.heads["matching"].score.weight.grad.abs().sum() > 0


def test_validation_is_four_way_and_always_the_same(tiny_data: Path) -> None:
    task = task_of(tiny_data, negatives="in-batch")
    task.load_dataset("valid", epoch=1)
    first, second = (batches(task, "valid", epoch) for epoch in (1, 2))
    assert all(batch["choices"].shape[1] == 4 for batch in first)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["net_input"]["src_tokens"], other["net_input"]["src_tokens"])


def texts(batches: Iterable[dict[str, Any]]) -> dict[int, list[list[int]]]:
    """Item → the captions of its four pairs."""
    found = {}
    for batch in batches:
        tokens = batch["net_input"]["src_tokens"].view(len(batch["id"]), 4, -1)
        for item, four in zip(batch["id"].tolist(), tokens, strict=True):
            found[item] = [caption[caption != 1].tolist() for caption in four]
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_negatives_change_with_the_epoch_also_in_workers(tiny_data: Path, workers: int) -> None:
    task = task_of(tiny_data)
    task.load_dataset("train", epoch=1)
    iterator = task.get_batch_iterator(
        task.dataset("train"), max_sentences=8, max_positions=(1000, 60), seed=1, num_workers=workers
    )
    seen = []
    for _ in range(2):
        seen.append(texts(iterator.next_epoch_itr(shuffle=False)))
    assert seen[0].keys() == seen[1].keys()
    assert all(seen[0][item][0] == seen[1][item][0] for item in seen[0])
    assert np.mean([seen[0][item][1] != seen[1][item][1] for item in seen[0]]) > 0.5
    if workers:
        plain = task_of(tiny_data)
        plain.load_dataset("train", epoch=1)
        alone = batches(plain, "train", epoch=2)
        assert texts(alone) == seen[1]


def test_longer_captions_than_the_model_reads_are_no_negatives(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    captions = task.directory.captions("train")
    limit = int(np.median(np.array(captions.sizes)))
    config = XGPTConfig(**SMALL, max_target_positions=limit, _name="xgpt")
    task.build_model(OmegaConf.structured(config))
    task.load_dataset("train", epoch=1)
    dataset = task.dataset("train")
    kept, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), (1000, limit))
    batch = dataset.collater([dataset[int(index)] for index in kept])
    assert batch["net_input"]["src_tokens"].size(1) <= limit
