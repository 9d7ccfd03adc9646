"""Networks of torchvision: `torchvision:resnet50`, `torchvision:convnext_tiny`, …"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hashing import tensors_sha256
from xgpt_fairseq.vision.backbones.base import (
    Backbone,
    BackboneOptions,
    Origin,
    Preprocessing,
    needs_package,
    per_channel,
)
from xgpt_fairseq.vision.backbones.broken_packages import torchvision_advice
from xgpt_fairseq.vision.families import stay_offline
from xgpt_fairseq.vision.packing import Packed, load_tensors

# What the modules are called whose output is the last feature map.
LAST_MAPS: Final = ("layer4", "trunk_output", "blocks", "features")


def load(name: str, options: BackboneOptions) -> Backbone:
    """Load a backbone by torchvision's name for it, with its default weights or those of a file.

    A layer is the name of a module, `layer3` for instance; None: the one of the last feature map.

    Raises:
        DataError: torchvision is not installed, knows no such model or layer, or the weights are missing or damaged.
    """
    try:
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor
    except Exception as error:  # also what torchvision raises
        advice = torchvision_advice()
        raise DataError(f"{name}: {advice}") if advice else needs_package(name, "torchvision", error) from None
    model_name = name.removeprefix("torchvision:")
    try:
        published = models.get_model_weights(model_name).DEFAULT
        model = models.get_model(model_name, weights=None).eval()
    except ValueError:
        raise DataError(f"{name}: torchvision has no such model; torchvision.models.list_models() lists them") from None
    state = _state(name, published, options)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{name}: {options.weights} does not fit: {' '.join(str(error).split())[:300]}") from None
    transforms = published.transforms()
    preprocessing = Preprocessing(
        mean=per_channel(transforms.mean),
        std=per_channel(transforms.std),
        image_size=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
        fixed_size=hasattr(model, "encoder") or model_name.startswith("maxvit"),  # ViTs: positions of one size
    )
    layer = options.layer or next((each for each in LAST_MAPS if hasattr(model, each)), None)
    if layer is None:
        raise DataError(f"{name}: which module's output is meant? name it, --layer MODULE: {_children(model)}")
    try:
        extractor = create_feature_extractor(model, {layer: "map"})
    except ValueError:
        raise DataError(f"{name} has no module {layer!r}; at its top are {_children(model)}") from None
    origin = Origin(
        tensors_sha256(model.state_dict()),
        versions={package: version(package) for package in ("torch", "torchvision")},
    )
    network = _TheMap(extractor)
    return Backbone(
        name,
        network,
        preprocessing=preprocessing,
        origin=origin,
        layer=options.layer,
        packed=lambda: Packed(model.state_dict()),
    )


class _TheMap(torch.nn.Module):
    """The one output of a feature extractor."""

    def __init__(self, extractor: torch.nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, 3, H, W) → the chosen module's output, in one of `base.Layout`'s kinds."""
        found: torch.Tensor = self.extractor(x)["map"]
        return found


def published_state(name: str, published: Any, *, offline: bool) -> dict[str, torch.Tensor]:
    """The *published* weights of torchvision's, from torch's cache or the network.

    Raises:
        DataError: they aren't in the cache, and *offline* or not to be fetched.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
    if stay_offline(offline) and not file.exists():
        raise DataError(f"{name}: {file} is missing; fetch it elsewhere: curl -LO {published.url}")
    try:
        found: dict[str, torch.Tensor] = published.get_state_dict(check_hash=True, weights_only=True)
    except Exception as error:  # the network, or a hash that differs
        raise DataError(f"{name}: {published.url} can't be fetched ({error}); or give --weights FILE") from None
    return found


def _state(name: str, published: Any, options: BackboneOptions) -> dict[str, torch.Tensor]:
    """The published weights, or those of a file."""
    if options.weights is None:
        return published_state(name, published, offline=options.offline)
    return load_tensors(name, options.weights)


def _children(model: torch.nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_children())
