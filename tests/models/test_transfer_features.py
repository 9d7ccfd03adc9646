"""What a checkpoint says of the extractor that made its regions, and stores of other settings."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.models.small import build
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.transfer import LoadMode, decode_structure
from xgpt_fairseq.models.xgpt import XGPTModel

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
