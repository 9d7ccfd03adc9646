"""What the scores of real photos are compared with: against loops over photos, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from tests.scripts import example
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.metrics.ptb import ptb_tokenize

baselines = example("real_photos/baselines.py")


def photos(data: DataDirectory, split: str) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Image id → the mean of its regions' features (D,), and its captions as words."""
    found = {}
    for image_id, captions in data.references(split).captions.items():
        row = data.regions.image_ids().index(image_id)
        found[image_id] = data.regions.features(row).astype(np.float64).mean(axis=0), ptb_tokenize(captions)
    return found


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.sqrt(one @ one) / np.sqrt(other @ other))


def cider(truth: dict[str, list[str]], captions: dict[str, str]) -> float:
    return float(Cider().compute_score(truth, {image: [caption] for image, caption in captions.items()})[0])


def test_both_are_those_of_a_loop(call_program: Callable[..., Any], tiny_data: Path) -> None:
    data = DataDirectory(tiny_data)
    train, valid = photos(data, "train"), photos(data, "valid")
    borrowed = {}
    for image, (mean, _) in valid.items():
        best = max(train, key=lambda other, mean=mean: cosine(mean, train[other][0]))
        borrowed[image] = train[best][1][0]
    truth = {image: captions for image, (_, captions) in valid.items()}
    turns = []
    for place in range(5):
        others = {image: captions[:place] + captions[place + 1 :] for image, captions in truth.items()}
        turns.append(cider(others, {image: captions[place] for image, captions in truth.items()}))
    done = call_program(baselines.main, tiny_data)
    assert done.status == 0, done.stderr
    expected = f"| data, valid | 2 | {cider(truth, borrowed):.3f} | {np.mean(turns):.3f} |"
    assert done.stdout.splitlines()[-1] == expected


def test_the_nearest_of_many_photos() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(300, 5)), rng.normal(size=(40, 5))
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other)]
    expected = [max(range(40), key=lambda place, mean=mean: cosine(mean, other[place])) for mean in one]
    assert baselines.nearest(*unit) == expected


def test_what_cannot_be_compared_is_refused(
    call_program: Callable[..., Any], tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call_program(baselines.main, tiny_data, "--split", "unseen")
    assert done.status == 1
    assert re.match(rf"{tiny_data} has no \w+ for split 'unseen'; it has: ", done.error)
    wide = DataDirectory(tiny_data)
    monkeypatch.setattr(type(wide.regions), "feature_dim", property(lambda store: 16 + (store is wide.regions)))
    with pytest.raises(baselines.DataError, match=r"has features of width 17, .* of width 16: photos are compared by"):
        baselines.checked(tiny_data, "valid", wide)
