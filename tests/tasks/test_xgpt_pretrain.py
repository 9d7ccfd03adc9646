"""The options of the task `xgpt_pretrain`."""

from __future__ import annotations

import argparse
import collections
import re
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data.iterators import EpochBatchIterator
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.utils import gen_parser_from_dataclass

from tests.models.small import HIDDEN, build, dictionary_of
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import ALL_OBJECTIVES, PRETRAINING_OBJECTIVES, build_objectives, option_fields
from xgpt_fairseq.objectives.base import Options, WordObjective, option
from xgpt_fairseq.tasks.xgpt_pretrain import XGPTPretrainConfig, XGPTPretrainTask


def task_of(data: Path, **options: Any) -> XGPTPretrainTask:
    cfg = SimpleNamespace(**{**vars(XGPTPretrainConfig(data=str(data))), **options})
    return XGPTPretrainTask(cfg, DataDirectory(data))


def test_the_defaults_are_the_papers(tiny_data: Path) -> None:
    """Sections 4.3 and 5.1, appendix A.2: four objectives in turns, weight 1 each, half a caption, Poisson spans."""
    task = task_of(tiny_data)
    assert task.objective_weights == {"ic": 1.0, "imlm": 1.0, "ida": 1.0, "tifg": 1.0}
    assert list(task.objectives) == ["ic", "imlm", "ida", "tifg"]
    assert not task.joint
    assert {name: vars(objective.options) for name, objective in task.objectives.items()} == {
        "ic": {"word_dropout": 0.0},
        "imlm": {"fragment_ratio": 0.5},
        "ida": {"mask_ratio": 0.3, "spans": "poisson", "placeholder": "single", "keep_regions": False},
        "tifg": {"regions": 100, "reduction": "mean", "target": "embedding"},
    }


# every option of an objective, with another value than its default
CHANGED = {
    "ic_word_dropout": 0.2,
    "imlm_fragment_ratio": 0.25, "ida_mask_ratio": 0.15, "ida_spans": "one", "ida_placeholder": "multi",
    "ida_keep_regions": True, "tifg_regions": 7, "tifg_reduction": "sum", "tifg_target": "feature",
    "mlm_mask_ratio": 0.3, "mass_fragment_ratio": 0.4,
}  # fmt: skip


def test_every_option_reaches_its_objective(tiny_data: Path) -> None:
    """Nothing but the objective's own declaration says that it has the option."""
    task = task_of(tiny_data, objectives=",".join(PRETRAINING_OBJECTIVES), **CHANGED)
    found = {
        f"{name}_{option}": value
        for name, objective in task.objectives.items()
        for option, value in vars(objective.options).items()
    }
    assert found == CHANGED
    assert all(value != getattr(XGPTPretrainConfig(), name) for name, value in CHANGED.items())


def test_a_made_up_objective_brings_its_options_and_its_head_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module declares them; configuration, help, checks, values, and the model's parameters follow."""

    class ReversalHead(torch.nn.Linear):
        def forward(self, model: Any, *, src_tokens: torch.Tensor) -> torch.Tensor:
            return super().forward(model.encoder(src_tokens=src_tokens)["memory"].states)

    @dataclass(frozen=True)
    class ReversalOptions(Options):
        depth: int = option(2, "how deep", least=1)
        order: str = option("up", "which way", choices=("up", "down"))

    class Reversal(WordObjective):
        name, uses_regions, random, Options = "reversal", False, False, ReversalOptions

        def build_head(self, *, hidden_size: int, feature_dim: int | None, dropout: float) -> torch.nn.Module:
            return ReversalHead(hidden_size, self.options.depth)

        def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
            return {"src_tokens": tokens[::-1], **self.whole_sentence(tokens)}

    monkeypatch.setitem(ALL_OBJECTIVES, "reversal", Reversal)
    config = make_dataclass("Config", option_fields([Reversal]), bases=(FairseqDataclass,))
    parser = argparse.ArgumentParser()
    gen_parser_from_dataclass(parser, config())
    args = parser.parse_args(["--reversal-depth", "5", "--reversal-order", "down"])
    assert "how deep" in parser.format_help() and "{up,down}" in parser.format_help()
    (made,) = build_objectives(["reversal"], dictionary_of(5), vars(args)).values()
    assert vars(made.options) == {"depth": 5, "order": "down"}
    model = build(heads=["reversal"], objective_options=vars(args))
    assert model.state_dict()["heads.reversal.weight"].shape == (5, HIDDEN)
    assert model("reversal", src_tokens=torch.tensor([[5, 6, 2]])).shape == (1, 3, 5)
    for options, message in (
        ({"reversal_depth": 0}, "--reversal-depth must be at least 1, got 0"),
        ({"reversal_order": "left"}, "--reversal-order must be one of up, down, got left"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            build_objectives(["reversal"], dictionary_of(5), options)


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
        ({"objectives": "ic", "ida_mask_ratio": 1.5}, "--ida-mask-ratio must be between 0 and 1, got 1.5"),
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
    captions = DataDirectory(tiny_data).manifest.splits["train"].captions
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
