"""The options of the task `xgpt_text_pretrain`, and the splits that it loads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xgpt_fairseq.data.directory import TextDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.xgpt_text_pretrain import XGPTTextPretrainConfig, XGPTTextPretrainTask


def task_of(data: Path, **options: Any) -> XGPTTextPretrainTask:
    cfg = SimpleNamespace(**{**vars(XGPTTextPretrainConfig(data=str(data))), "seed": 1, "train_subset": "train"})
    vars(cfg).update(options)
    return XGPTTextPretrainTask(cfg, TextDirectory(data))


def test_the_defaults_are_the_papers(tiny_text_data: Path) -> None:
    """Section 5.4: MLM (15 %) and MASS (half a sentence), in turns."""
    task = task_of(tiny_text_data)
    assert task.objective_weights == {"mlm": 1.0, "mass": 1.0} and not task.joint
    assert task.objectives["mlm"].options.mask_ratio == 0.15
    assert task.objectives["mass"].options.fragment_ratio == 0.5


def test_every_option_reaches_its_objective(tiny_text_data: Path) -> None:
    task = task_of(tiny_text_data, mlm_mask_ratio=0.3, mass_fragment_ratio=0.25)
    assert task.objectives["mlm"].options.mask_ratio == 0.3
    assert task.objectives["mass"].options.fragment_ratio == 0.25


def test_training_is_shuffled_a_part_at_a_time_and_validation_is_whole(tiny_text_data: Path) -> None:
    task = task_of(tiny_text_data, sentences_per_epoch=7)
    for split in ("train", "valid"):
        task.load_dataset(split, epoch=1)
    assert len(task.dataset("train").ordered_indices()) == 7 < len(task.dataset("train"))
    assert task.dataset("valid").ordered_indices().tolist() == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_an_interrupted_part_goes_on_with_its_own_sentences(tiny_text_data: Path) -> None:
    """Batches of the epoch that goes on are drawn before fairseq tells a data set its number."""

    def iterator() -> Any:
        task = task_of(tiny_text_data, sentences_per_epoch=7, update_freq=[1])
        task.load_dataset("train", epoch=1)
        return task.get_batch_iterator(task.dataset("train"), max_sentences=2)

    def rest(begun: Any) -> Iterator[tuple[str, list[int], list[list[int]]]]:
        while begun.has_next():
            batch = next(begun)
            yield batch["objective"], batch["id"].tolist(), batch["target"].tolist()

    whole = iterator()
    assert {item for _, items, _ in rest(whole.next_epoch_itr()) for item in items} == set(range(7))
    second = whole.next_epoch_itr()
    next(second)
    state = whole.state_dict()
    expected = list(rest(second))
    assert len(expected) == 7 and {item for _, items, _ in expected for item in items} == set(range(7, 14))
    resumed = iterator()
    resumed.load_state_dict(state)
    assert list(rest(resumed.next_epoch_itr())) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": "mlm,ic"}, "--objectives: unknown objective ic (it needs images, and this task has none)"),
        ({"objectives": "mlm,itm"}, "--objectives: unknown objective itm; known: mlm, mass"),
        ({"objective_weights": "mass=-1"}, "--objective-weights mass=-1: a weight is a number of 0 or more"),
        ({"mlm_mask_ratio": 0.0}, "--mlm-mask-ratio must be between 0 and 1, got 0.0"),
        ({"mass_fragment_ratio": 1.0}, "--mass-fragment-ratio must be between 0 and 1, got 1.0"),
        ({"sentences_per_epoch": -1}, "--sentences-per-epoch must be 0 (all) or more, got -1"),
    ],
    ids=str,
)
def test_options_are_checked(tiny_text_data: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        task_of(tiny_text_data, **options)


def test_captions_are_no_text(tiny_data: Path) -> None:
    with pytest.raises(DataError, match=r"holds captions, .* sentences, for the task xgpt_text_pretrain, are needed"):
        task_of(tiny_data)
