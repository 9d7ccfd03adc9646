"""Weights of timm's networks: where they are when there is no network, and by which names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vision.backbones.tiny import import_torchvision
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.registry import load_backbone


@pytest.mark.parametrize("said", ["option", "environment"])
def test_weights_that_are_not_on_the_hub_are_not_fetched_offline(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_torchvision()
    asked: list[str] = []

    def fetch(url: str, **options: Any) -> None:
        asked.append(url)
        raise RuntimeError("damaged")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", fetch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    options = BackboneOptions(offline=said == "option")
    if said == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = (
        r"^timm:gcvit_xxtiny: .*gcvit_xxtiny_224_nvidia-\w+\.pth is missing; fetch it elsewhere: curl -LO https://"
    )
    with pytest.raises(DataError, match=message) as error:
        load_backbone("timm:gcvit_xxtiny", options)
    assert asked == []
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / str(error.value).rsplit("/", 1)[1]).touch()
    with pytest.raises(DataError, match="the weights can't be loaded: RuntimeError: damaged"):  # of the cache
        load_backbone("timm:gcvit_xxtiny", options)
    assert len(asked) == 1


def test_an_authors_own_names_of_weights(tmp_path: Path) -> None:
    import_torchvision()
    import timm

    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save({f"encoder.{name}": tensor for name, tensor in state.items()}, tmp_path / "authors.pth")
    with pytest.raises(DataError, match=r"authors\.pth lacks weights: [\w., ]+; they need the names that timm has for"):
        load_backbone("timm:test_resnet", BackboneOptions(weights=tmp_path / "authors.pth"))
