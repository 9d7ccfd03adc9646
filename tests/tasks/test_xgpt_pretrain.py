"""The options of the task `xgpt_pretrain`."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.data.iterators import EpochBatchIterator

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.xgpt_pretrain import XGPTPretrainConfig, XGPTPretrainTask


def task_of(data: Path, **options: Any) -> XGPTPretrainTask:
    cfg = SimpleNamespace(**{**vars(XGPTPretrainConfig(data=str(data))), **options})
    return XGPTPretrainTask(cfg, DataDirectory(data))  # type: ignore[arg-type]


def test_the_defaults_are_the_papers(tiny_data: Path) -> None:
    """Sections 4.3 and 5.1, appendix A.2: four objectives in turns, weight 1 each, half a caption, Poisson spans."""
    task = task_of(tiny_data)
    assert task.objective_weights == {"ic": 1.0, "imlm": 1.0, "ida": 1.0, "tifg": 1.0}
    assert list(task.objectives) == ["ic", "imlm", "ida", "tifg"]
    assert not task.joint
    options = task.objectives["ida"].options
    assert (options.imlm_fragment_ratio, options.ida_mask_ratio) == (0.5, 0.3)
    assert (options.ida_spans, options.ida_placeholder, options.ida_keep_regions) == ("poisson", "single", False)


def test_weights_and_order(tiny_data: Path) -> None:
    task = task_of(tiny_data, objectives="tifg, ic,ida", objective_weights="ida=0.3,tifg=0", objective_schedule="joint")
    assert task.objective_weights == {"ic": 1.0, "ida": 0.3}
    assert list(task.objectives) == ["ic", "ida"]
    assert task.joint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": "ic,itm"}, "--objectives: unknown objective itm; known: ic, imlm, ida, tifg"),
        ({"objectives": ""}, "--objectives: unknown objective"),
        ({"objectives": "ic,ic"}, "an objective is named twice"),
        ({"objective_weights": "imlm=x"}, "--objective-weights imlm=x: expected name=number"),
        ({"objective_weights": "imlm=-1"}, "--objective-weights imlm=-1: a weight is a number of 0 or more"),
        ({"objectives": "ic", "objective_weights": "ida=1"}, "ida is not among --objectives ic"),
        ({"objective_weights": "ic=0,imlm=0,ida=0,tifg=0"}, "nothing is left to train"),
        ({"ida_mask_ratio": 1.5}, "--ida-mask-ratio must be between 0 and 1, got 1.5"),
        ({"imlm_fragment_ratio": 0.0}, "--imlm-fragment-ratio must be between 0 and 1, got 0.0"),
        ({"tifg_regions": 0}, "--tifg-regions must be at least 1, got 0"),
        (
            {"objectives": "imlm,tifg", "eval_captions": True},
            "--eval-captions validates image captioning, which is not among --objectives imlm,tifg: add ic",
        ),
        (
            {"eval_captions": True, "objective_weights": "ic=0"},
            "--eval-captions validates image captioning, which is not among --objectives imlm,ida,tifg",
        ),
    ],
    ids=str,
)
def test_options_are_checked(tiny_data: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        task_of(tiny_data, **options)


def iterator_of(data: Path, *, captions_per_image: int, update_freq: int, **shard: int) -> EpochBatchIterator:
    """A process's batches of four captions, as fairseq's trainer asks for them."""
    options = {"captions_per_image": captions_per_image, "update_freq": [update_freq], "train_subset": "train"}
    task = task_of(data, **options, seed=1)
    task.load_dataset("train", epoch=1)
    return task.get_batch_iterator(
        task.dataset("train"), max_sentences=4, max_positions=(1000, 60), required_batch_size_multiple=8, **shard
    )


@pytest.mark.parametrize("captions_per_image", [1, 2, 5])
@pytest.mark.parametrize("world", [1, 2])
def test_an_update_has_the_captions_that_were_asked_for(tiny_data: Path, captions_per_image: int, world: int) -> None:
    """Whatever --captions-per-image; each objective of an iteration sees them, and an epoch has every caption once."""
    captions = DataDirectory(tiny_data).description["splits"]["train"]["captions"]
    size = 2 * world  # batches an update
    ranks = [
        iterator_of(tiny_data, captions_per_image=captions_per_image, update_freq=2, num_shards=world, shard_id=rank)
        for rank in range(world)
    ]
    dealt = [batch for batches in zip(*(rank.next_epoch_itr() for rank in ranks), strict=True) for batch in batches]
    seen = collections.defaultdict(list)
    for number in range(0, len(dealt), size):
        update = dealt[number : number + size]
        (objective,) = {batch["objective"] for batch in update}
        assert objective == ["ic", "imlm", "ida", "tifg"][number // size % 4]
        seen[objective].append([sorted(batch["id"].tolist()) for batch in update])
    assert seen["ic"] == seen["imlm"] == seen["ida"] == seen["tifg"]
    assert sorted(i for update in seen["ic"] for batch in update for i in batch) == list(range(captions))
    # but for the epoch's last batch, and the last update, which shares out what is left
    totals = [sum(map(len, update)) for update in seen["ic"]]
    assert len(totals) >= 3 and sum(total != 4 * size for total in totals) <= 2


def test_a_resumed_epoch_goes_on_in_the_midst_of_an_image(tiny_data: Path) -> None:
    iterator = iterator_of(tiny_data, captions_per_image=5, update_freq=1)
    batches = iterator.next_epoch_itr()
    for _ in range(9):
        next(batches)
    state = iterator.state_dict()
    resumed = iterator_of(tiny_data, captions_per_image=5, update_freq=1)
    resumed.load_state_dict(state)
    rest = list(resumed.next_epoch_itr())
    assert len(rest) > 9
    for batch, expected in zip(rest, batches, strict=True):
        assert batch["id"].tolist() == expected["id"].tolist() and batch["objective"] == expected["objective"]
