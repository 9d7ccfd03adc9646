"""What a checkpoint says of the extractor that made its regions, and stores of other settings."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.small import build
from tests.regions.test_statistics import draw, write
from xgpt_fairseq import loading
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.transfer import LoadMode, decode_structure
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.regions.statistics import FEWEST_IMAGES, comparable_statistics, feature_statistics

GRID = {"version": 2, "backbone": "efficientnet-lite0", "image_size": 384, "grid": 7, "license": "Apache 2.0"}


def of_extractor(settings: dict[str, Any] | None, store: str | None = "mine.regions") -> XGPTModel:
    return build(task_options={"feature_settings": settings, "store_name": store})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def start(model: XGPTModel, state: dict[str, Any]) -> None:
    model.load_mode, model.checkpoint = LoadMode.START, "checkpoints/cc/averaged.pt"
    model.load_state_dict(state)


@pytest.mark.parametrize("mode", [LoadMode.RESUME, LoadMode.INFERENCE])
def test_features_of_other_settings_are_refused(mode: LoadMode) -> None:
    """Also where they have the same width, and means and spreads that are near."""
    trained = of_extractor(GRID).state_dict()
    for change, message in (
        ({"backbone": "efficientnet-lite2"}, r"\(backbone 'efficientnet-lite2' instead of 'efficientnet-lite0'\)"),
        ({"image_size": 224, "grid": 6}, r"\(grid 6 instead of 7, image_size 224 instead of 384\)"),
    ):
        model = of_extractor({**GRID, **change})
        model.load_mode = mode
        with pytest.raises(DataError, match=f"region store mine.regions has other features than .* {message}: extract"):
            model.load_state_dict(trained)
    for same in ({}, {"license": None}, {"version": 3}):
        model = of_extractor({**GRID, **same})
        model.load_mode = mode
        model.load_state_dict(trained)


def test_a_stage_on_features_of_other_settings_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    model = of_extractor({**GRID, "grid": 6})
    start(model, of_extractor(GRID).state_dict())
    [warning] = warnings(caplog)
    assert (
        "has other features than those that checkpoints/cc/averaged.pt was trained on (grid 6 instead of 7)" in warning
    )
    assert decode_structure(model.structure)["features"]["grid"] == 6  # from now on


def test_settings_that_are_not_known_are_not_compared(caplog: pytest.LogCaptureFixture) -> None:
    """Of imported archives, checkpoints of earlier versions, and models that know no store."""
    for own, given in ((None, GRID), (GRID, None), (None, None)):
        start(of_extractor(own), of_extractor(given).state_dict())
    assert not warnings(caplog)
    model = of_extractor(None, store=None)
    model.load_state_dict(of_extractor(GRID).state_dict())
    assert decode_structure(model.structure)["features"] == {
        name: value for name, value in GRID.items() if name not in ("version", "license")
    }


@pytest.mark.parametrize("mode", LoadMode)
def test_means_and_spreads_are_compared_whatever_a_checkpoint_is_loaded_for(
    mode: LoadMode, caplog: pytest.LogCaptureFixture
) -> None:
    """Imported archives have no settings; another network's features of the same width would caption nonsense."""
    mean, spread = torch.linspace(0.1, 2, 7), torch.linspace(1, 2, 7)
    for factor, count in ((1.0, 0), (2.0, 1)):
        model, trained = of_extractor(None), of_extractor(None)
        trained.encoder.regions.keep_statistics(mean, spread)
        model.encoder.regions.keep_statistics(mean * factor, spread * factor)
        model.load_mode = mode
        model.load_state_dict(trained.state_dict())
        assert len(warnings(caplog)) == count
    [warning] = warnings(caplog)
    assert "the region store mine.regions are far from those that the checkpoint was trained on" in warning
    kept = model.state_dict()["encoder.regions.feature_mean"]
    assert torch.equal(kept, mean * (2 if mode is LoadMode.START else 1))


def test_a_trained_model_that_is_opened_knows_its_store_if_that_has_images_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, enough = (write(tmp_path / str(n), draw(n)) for n in (FEWEST_IMAGES - 1, FEWEST_IMAGES))
    assert comparable_statistics(few) is None
    models = [of_extractor(None), of_extractor(None)]
    monkeypatch.setattr(XGPTModel, "build_model", lambda config, task: models.pop())
    for store in (few, enough):
        directory: Any = SimpleNamespace(regions=store)
        vocabulary: Any = SimpleNamespace(dictionary=None)
        model = loading.build_model(XGPTConfig(), vocabulary, directory=directory)
        mean = model.state_dict().get("encoder.regions.feature_mean")
        assert (mean is None) == (store is few)
    assert mean is not None
    np.testing.assert_array_equal(mean.numpy(), feature_statistics(enough)[0])
