"""The nearest images, against a plain sort in float64: on which device, with how many threads, in which blocks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from xgpt_fairseq.data import hard_images as module
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.hard_images import hard_images, mean_features, nearest_images, own_cores
from xgpt_fairseq.data.matching_dataset import MatchingDataset
from xgpt_fairseq.tasks import xgpt_retrieval


def cosines(features: np.ndarray) -> np.ndarray:
    """(I, I) float64; of an image with itself minus infinity."""
    exact = features.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    unit = exact / np.where(length > 0, length, 1)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return cosine


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 14), st.integers(1, 5))
def test_the_nearest_are_those_of_a_plain_sort(seed: int, images: int, count: int, block: int) -> None:
    # whole numbers of few lengths: many ties
    features = np.random.default_rng(seed).integers(-1, 2, (images, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        nearest = nearest_images(features, count)
    assert nearest.shape == (images, min(count, images - 1)) and nearest.dtype == np.int32
    for i, (line, cosine) in enumerate(zip(nearest.tolist(), cosines(features), strict=True)):
        assert i not in line and len(set(line)) == len(line)
        expected = np.sort(cosine)[::-1][: len(line)]
        assert cosine[line] == pytest.approx(expected, abs=1e-6)


def test_equally_near_ones_come_by_index() -> None:
    features = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert nearest_images(features, 5).tolist() == [
        [3, 4, 1, 2, 5],
        [2, 5, 0, 3, 4],
        [1, 5, 0, 3, 4],
        [0, 4, 1, 2, 5],
        [0, 3, 1, 2, 5],
        [1, 2, 0, 3, 4],
    ]


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_mean_features(at_once: int, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of different numbers of regions, so that some are padded."""
    monkeypatch.setattr(module, "READ", at_once)
    store = DataDirectory(tiny_data).regions
    rows = np.array([3, 1, *range(4, len(store))])
    assert len(set(store.region_counts(rows).tolist())) > 1
    means = mean_features(store, rows)
    assert means.dtype == np.float32
    for row, mean in zip(rows.tolist(), means, strict=True):
        regions = store.features(row).astype(np.float64)
        assert mean == pytest.approx(sum(regions) / len(regions), abs=1e-6)


def test_the_hard_images_of_a_store(tiny_data: Path) -> None:
    store = DataDirectory(tiny_data).regions
    rows = np.arange(len(store))[::-1]
    exact = np.stack([store.features(int(row)).astype(np.float64).mean(axis=0) for row in rows])
    found = hard_images(store, rows, 4, split="train", device="cpu")
    for line, cosine in zip(found, cosines(exact), strict=True):
        assert line.tolist() == np.argsort(-cosine)[:4].tolist()


def test_what_a_gpu_cannot_hold_is_computed_on_the_cpu(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the memory of one that can is given back, also after an error."""
    caplog.set_level(logging.INFO)
    store = DataDirectory(tiny_data).regions
    rows = np.arange(5)
    needed = 4 * 5 * (2 * store.feature_dim + 4 * module.BLOCK)
    on: list[str] = []
    freed: list[bool] = []

    def nearest(features: np.ndarray, count: int, device: str) -> np.ndarray:
        on.append(device)
        if device == "cuda":
            raise RuntimeError("on a GPU")
        return nearest_images(features, count)

    monkeypatch.setattr(module, "nearest_images", nearest)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed, 1 << 40))
    assert hard_images(store, rows, 2, split="train", device="cuda").shape == (5, 2)
    assert on == ["cpu"] and not freed
    assert f"train: 5 images of width {store.feature_dim} do not fit the memory of cuda" in caplog.text
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed + 1, 1 << 40))
    with pytest.raises(RuntimeError, match="on a GPU"):
        hard_images(store, rows, 2, split="train", device="cuda")
    assert on == ["cpu", "cuda"] and freed == [True]


@pytest.mark.parametrize(
    ("processes", "before", "within"), [("4", 1, 3), ("4", 5, 5), ("1", 1, 1), (None, 2, 2), ("40", 1, 1)]
)
def test_threads(processes: str | None, before: int, within: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun says how many processes there are, and gives each one thread; else torch's number is the user's."""
    threads = [before]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(module, "available_cores", lambda: 12)
    if processes is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    with pytest.raises(ValueError, match="stop"), own_cores():
        assert threads[-1] == within
        raise ValueError("stop")
    assert threads[-1] == before


@pytest.mark.parametrize(
    ("cpu", "there", "device"), [(False, True, "cuda"), (True, True, "cpu"), (False, False, "cpu")]
)
def test_the_task_computes_where_it_trains(
    cpu: bool, there: bool, device: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def search(store: Any, rows: np.ndarray, count: int, *, split: str, device: str) -> np.ndarray:
        asked.append((split, count, device))
        return np.zeros((len(rows), 1), dtype=np.int32)

    monkeypatch.setattr("xgpt_fairseq.data.matching_dataset.hard_images", search)
    resolved = {"seed": 1, "update_freq": [1], "train_subset": "train", "best_checkpoint_metric": "loss"}
    config = xgpt_retrieval.XGPTRetrievalConfig(data=str(tiny_data), **resolved, hard_negative_pool=7)
    task = xgpt_retrieval.XGPTRetrievalTask.setup_task(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    root = OmegaConf.create({"common": {"cpu": cpu}, "task": {**vars(config)}})
    task.cfg = root.task
    task.load_dataset("train")
    assert asked == [("train", 7, device)]
    assert isinstance(task.datasets["train"], MatchingDataset)
