"""`xgpt-diagnose`: the table, the numbers, what is refused."""

from __future__ import annotations

import json
import math
import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from xgpt_fairseq.cli.diagnose import _differences, _table, main
from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.metrics.diagnosis import Losses
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import build_objectives

Call = Callable[..., Any]
TASK = {"objectives": "ic,imlm,ida,tifg", "ida_placeholder": "multi", "tifg_regions": 3}


def build(data: Path, **options: Any) -> tuple[XGPTModel, dict[str, Any]]:
    torch.manual_seed(0)
    directory = DataDirectory(data)
    config = {"layers": 2, "hidden_size": 16, "ffn_size": 32, "attention_heads": 2, **options}
    dictionary = directory.vocabulary.dictionary
    config = {"feature_dim": directory.regions.feature_dim, **config}
    heads = [] if config["feature_dim"] is None else ["tifg"]
    task = SimpleNamespace(target_dictionary=dictionary, objectives=build_objectives(heads, dictionary))
    model = XGPTModel.build_model(XGPTConfig(**config), task)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 0.3)
    return model.eval(), config


@pytest.fixture(scope="module")
def checkpoint(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, config = build(tiny_data)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    cfg = {"model": Namespace(**config), "task": Namespace(data=str(tiny_data), **TASK)}
    torch.save({"cfg": {**cfg, "task": dict(vars(cfg["task"]))}, "model": model.state_dict()}, path)
    return path


def plain_losses(data: Path) -> dict[str, float]:
    """Each objective's loss a prediction, image by image, with the options of the training."""
    directory = DataDirectory(data)
    dictionary = directory.vocabulary.dictionary
    model, _ = build(data)
    objectives = build_objectives(
        TASK["objectives"].split(","), dictionary, {"ida_placeholder": "multi", "tifg_regions": 3}
    )
    dataset = CaptionDataset(
        directory.captions("train"), directory.pairs("train"), directory.regions, objectives, split="train",
        pad=dictionary.pad(), captions_per_image=0, shuffle=False,
    )  # fmt: skip
    found = {}
    for place, (name, objective) in enumerate(objectives.items()):
        total = count = 0.0
        for item in range(len(dataset)):
            sample = dataset.collater([dataset[int(dataset.index_codec.pack(0, place, item))]])
            with torch.no_grad():
                result = objective.loss(model, sample, label_smoothing=0.0)
            total, count = total + float(result.unsmoothed), count + result.num_targets
        found[name] = total / count / (1 if name == "tifg" else math.log(2))
    return found


def test_the_losses_are_the_objectives_with_the_options_of_the_training(
    call_program: Call, checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "diagnosis.json"
    command = [checkpoint, tiny_data, "--split", "train", "--batch-size", "2", "--device", "cpu", "--output", output]
    done = call_program(main, *command)
    assert done.status == 0, done.stderr
    report = json.loads(output.read_text())["objectives"]
    assert {name: found["own"] for name, found in report.items()} == pytest.approx(plain_losses(tiny_data), rel=1e-4)
    assert "other text" not in report["ic"] and "other regions" not in report["tifg"]
    assert report["tifg"]["unit"] == "mse" and report["ida"]["unit"] == "bits"
    for found in report.values():
        for source in ("other text", "other regions", "neither"):
            assert source not in found or found[source]["low"] is found[source]["high"] is None
    head, names, *rows = done.stdout.splitlines()
    assert head.startswith("train: 8 images; ") and "(no interval: that needs 10 images or more)" in head
    assert names.split() == ["own", "other", "text", "other", "regions", "neither"]
    assert [row.split()[0] for row in rows] == TASK["objectives"].split(",")
    assert re.search(rf"^ida +{report['ida']['own']:.3f} bits", done.stdout, re.MULTILINE)
    again = call_program(main, *command)
    assert again.status == 1 and "exists" in again.error


def test_the_table_of_an_interval() -> None:
    losses = {
        "own": Losses(np.arange(9.0), np.full(9, 10)), "other text": Losses(np.arange(9.0) + 5, np.full(9, 10)),
    }  # fmt: skip
    report = {"tifg": _differences(losses, "mse"), "ida": _differences(losses, "nll")}
    head, _, mse, bits = _table(report, "valid", 20).splitlines()
    assert head.endswith("(95 % interval)")
    assert "+0.500 [+0.500, +0.500]" in mse and "+0.721 [+0.721, +0.721]" in bits


def test_objectives_by_name(call_program: Call, checkpoint: Path, tiny_data: Path) -> None:
    done = call_program(main, checkpoint, tiny_data, "--objectives", "imlm", "--device", "cpu")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["imlm"]
    refused = call_program(main, checkpoint, tiny_data, "--objectives", "itm", "--device", "cpu")
    assert refused.error.startswith("--objectives: unknown objective 'itm'; known: ic, imlm")
    refused = call_program(main, checkpoint, tiny_data, "--batch-size", "1", "--device", "cpu")
    assert refused.error.startswith("--batch-size must be at least 2")


def test_a_model_of_text_alone_is_refused(call_program: Call, tiny_data: Path, tmp_path: Path) -> None:
    directory = DataDirectory(tiny_data)
    config = {"layers": 1, "hidden_size": 16, "ffn_size": 32, "attention_heads": 2}
    task = SimpleNamespace(target_dictionary=directory.vocabulary.dictionary)
    model = XGPTModel.build_model(XGPTConfig(**config), task)
    path = tmp_path / "text.pt"
    torch.save({"cfg": {"model": Namespace(**config), "task": {}}, "model": model.state_dict()}, path)
    refused = call_program(main, path, tiny_data, "--device", "cpu")
    assert refused.error == (
        f"{path} is a model of text alone; it has to be trained with images before it is used on them"
    )


def test_captions_that_the_model_cannot_read_are_refused(call_program: Call, tiny_data: Path, tmp_path: Path) -> None:
    model, config = build(tiny_data, max_target_positions=10)
    path = tmp_path / "model.pt"
    torch.save({"cfg": {"model": Namespace(**config), "task": {}}, "model": model.state_dict()}, path)
    refused = call_program(main, path, tiny_data, "--device", "cpu", "--objectives", "ic")
    assert refused.error == (
        "split 'valid': 1 of 2 images have a caption longer than the model's --max-target-positions 10, the longest 13 "
        "tokens with the end of sentence: prepare the data with --max-tokens 10"
    )
