"""The task: what it refuses, what it builds, what generated text looks like."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.xgpt_caption import XGPTCaptionConfig, XGPTCaptionTask


def task_of(data: Path, **options: Any) -> XGPTCaptionTask:
    resolved = {"seed": 1, "update_freq": [1], "train_subset": "train", "best_checkpoint_metric": "loss"}
    return XGPTCaptionTask.setup_task(XGPTCaptionConfig(data=str(data), **{**resolved, **options}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions_per_image": 0}, "--captions-per-image must be at least 1, got 0"),
        ({"locality": -1}, "--locality must be at least 0, got -1"),
        ({"best_checkpoint_metric": "cider"}, "--best-checkpoint-metric cider needs --eval-captions"),
    ],
)
def test_options_are_checked(tiny_data: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task_of(tiny_data, **options)


@pytest.mark.parametrize("of", ["command line", "yaml", "name"])
@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothed_cross_entropy", "no_such"])
def test_another_criterion_is_refused(tiny_data: Path, name: str, of: str) -> None:
    def configured(name: str) -> Any:
        return {"command line": Namespace(criterion=name), "yaml": OmegaConf.create({"_name": name}), "name": name}[of]

    task = task_of(tiny_data)
    with pytest.raises(DataError, match=f"^--criterion {name} knows nothing of this task's objectives: pass .* xgpt "):
        task.build_criterion(configured(name))


def test_the_plugins_criterion_is_built(tiny_data: Path) -> None:
    cfg = OmegaConf.create({"_name": "xgpt", "label_smoothing": 0.1, "sentence_avg": False})
    criterion = task_of(tiny_data).build_criterion(cfg)
    assert isinstance(criterion, XGPTCriterion) and criterion.label_smoothing == 0.1


def test_items_of_training_validation_and_generation(tiny_data: Path) -> None:
    """Training takes --captions-per-image captions an item, validation all of an image's, generation its first."""
    task = task_of(tiny_data, captions_per_image=2)
    captions, images = (task.directory.description["splits"]["train"][name] for name in ("captions", "images"))
    task.load_dataset("train", epoch=1, combine=True)
    assert task.dataset("train").count.max() == 2 and task.dataset("train").count.sum() == captions
    task.load_dataset("valid", epoch=1)
    assert task.dataset("valid").count.sum() == task.directory.description["splits"]["valid"]["captions"]
    assert len(task.dataset("valid")) == task.directory.description["splits"]["valid"]["images"]
    task.load_dataset("train")
    assert len(task.dataset("train")) == images and (task.dataset("train").count == 1).all()


def test_the_subset_that_trains_is_what_fairseq_says(tiny_data: Path) -> None:
    task = task_of(tiny_data, train_subset="valid", captions_per_image=3)
    task.load_dataset("valid", epoch=1)
    task.load_dataset("test", epoch=1)
    assert task.dataset("valid").shuffle and task.dataset("valid").count.max() == 3
    assert not task.dataset("test").shuffle


def test_another_way_of_shuffling_is_refused(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    task.load_dataset("train", epoch=1)
    with pytest.raises(DataError, match="--grouped-shuffling would tear the turns apart"):
        task.get_batch_iterator(task.dataset("train"), max_sentences=4, grouped_shuffling=True)


@pytest.mark.parametrize(("freq", "expected"), [(4, [4, 4, 4]), ([1, 2], [1, 2, 2])])
def test_update_freq_by_epoch(tiny_data: Path, freq: Any, expected: list[int]) -> None:
    task = task_of(tiny_data, update_freq=freq)
    assert [task._update_freq(epoch) for epoch in (1, 2, 3)] == expected


@pytest.mark.parametrize(
    ("backend", "world", "unused", "refused"),
    [
        ("pytorch_ddp", 2, False, True),
        ("pytorch_ddp", 2, True, False),
        ("pytorch_ddp", 1, False, False),
        ("legacy_ddp", 2, False, False),
    ],
)
def test_several_processes_need_legacy_ddp(
    tiny_data: Path, backend: str, world: int, unused: bool, refused: bool
) -> None:
    distributed = {"distributed_world_size": world, "ddp_backend": backend, "find_unused_parameters": unused}
    options = {"data": str(tiny_data), "regions": None, "captions_per_image": 1, "locality": 0, "eval_captions": False,
               "best_checkpoint_metric": "loss", "seed": 1, "cpu_bf16": False}  # fmt: skip
    root = OmegaConf.create({"task": options, "distributed_training": distributed, "checkpoint": {}})
    task = XGPTCaptionTask(root.task, DataDirectory(tiny_data))
    if refused:
        with pytest.raises(DataError, match="several processes need --ddp-backend legacy_ddp"):
            task.begin_epoch(1, None)
    else:
        task.begin_epoch(1, None)


def test_every_process_reads_checkpoints(tiny_data: Path) -> None:
    options = {"data": str(tiny_data), "regions": None, "captions_per_image": 1, "locality": 0, "eval_captions": False,
               "best_checkpoint_metric": "loss", "seed": 1, "cpu_bf16": False}  # fmt: skip
    root = OmegaConf.create({"task": options, "checkpoint": {"load_checkpoint_on_all_dp_ranks": False}})
    XGPTCaptionTask.setup_task(root.task)
    assert root.checkpoint.load_checkpoint_on_all_dp_ranks is True


def test_parameters_without_a_gradient_step_as_with_one_of_0(tiny_data: Path) -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    model[0](torch.ones(1, 2)).sum().backward()
    stepped = []
    optimizer = SimpleNamespace(step=lambda: stepped.append([p.grad.abs().sum().item() for p in model.parameters()]))
    task_of(tiny_data).optimizer_step(optimizer, model, 0)
    assert len(stepped) == 1
    assert all(total > 0 for total in stepped[0][:2]) and stepped[0][2:] == [0.0, 0.0]


def test_symbols_that_are_no_words_are_never_generated(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    model = SimpleNamespace(eval=lambda: None)
    seen: dict[str, Any] = {}

    def generator_class(models: Any, dictionary: Any, **options: Any) -> Any:
        seen.update(options)
        return model

    task.build_generator([model], SimpleNamespace(beam=1), seq_gen_cls=generator_class)
    assert {"<mask>", "<s>"} <= set(seen["tokens_to_suppress"])
    made_up = {symbol for symbol in task.target_dictionary.symbols if symbol.startswith("madeupword")}
    assert made_up <= set(seen["tokens_to_suppress"])


def test_text_comes_back_as_written(tiny_data: Path) -> None:
    task = task_of(tiny_data)
    text = "a red cat sits near an old man's house."
    tokens = torch.from_numpy(task.vocabulary.encode_ids(text))
    assert task.to_text(torch.cat([tokens, torch.tensor([task.target_dictionary.eos()])])) == text
