"""Models from checkpoints, and what is said of those that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.loading import build_model, open_model
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import Objective, build_objectives

SIZES = {"layers": 1, "hidden_size": 16, "ffn_size": 16, "attention_heads": 2}


def heads(directory: DataDirectory, *, matching: bool) -> dict[str, Objective]:
    return build_objectives(["matching"] if matching else [], directory.vocabulary.dictionary)


def trained(directory: DataDirectory, *, matching: bool = False, **options: Any) -> tuple[XGPTModel, dict[str, Any]]:
    """A model, and what a checkpoint of it holds."""
    config = XGPTConfig(**{**SIZES, **options})
    model = build_model(config, directory.vocabulary, objectives=heads(directory, matching=matching))
    return model, {"model": model.state_dict(), "cfg": {"model": {**vars(config), "_name": "xgpt_base"}}}


@pytest.mark.parametrize("matching", [False, True])
def test_the_model_comes_back(tiny_data: Path, matching: bool) -> None:
    directory = DataDirectory(tiny_data)
    model, state = trained(directory, matching=matching, feature_dim=directory.regions.feature_dim, sharing="enc")
    opened = open_model(Path("a.pt"), state, directory, objectives=heads(directory, matching=matching))
    assert not opened.training
    for (name, own), (other, given) in zip(opened.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == other and torch.equal(own, given)


@pytest.mark.parametrize(
    ("trained_as", "matching", "message"),
    [
        ({"feature_dim": None}, False, "a.pt is a model of text alone; it has to be trained with images before"),
        ({"feature_dim": 5}, False, "has features of width 16, but the model was built for width 5"),
        ({"feature_dim": 16}, True, "a.pt: the checkpoint has no matching head"),
        ({"feature_dim": 16, "matching": True}, False, "a.pt: the checkpoint has a matching head"),
    ],
    ids=str,
)
def test_a_model_of_another_kind_is_refused(
    tiny_data: Path, trained_as: dict[str, Any], matching: bool, message: str
) -> None:
    directory = DataDirectory(tiny_data)
    _, state = trained(directory, **trained_as)
    with pytest.raises(DataError, match=re.escape(message)):
        open_model(Path("a.pt"), state, directory, objectives=heads(directory, matching=matching))


def test_a_checkpoint_of_no_training_is_refused(tiny_data: Path) -> None:
    with pytest.raises(DataError, match=re.escape("a.pt has no configuration of its model")):
        open_model(Path("a.pt"), {"model": {}}, DataDirectory(tiny_data))
