"""Networks of timm (PyTorch Image Models, Wightman 2019): `timm:vit_base_patch16_clip_224.openai`, …"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from xgpt_fairseq.checkpoints import SAFE_GLOBALS
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hashing import tensors_sha256
from xgpt_fairseq.vision.backbones.base import (
    Backbone,
    BackboneOptions,
    Origin,
    Preprocessing,
    layer_number,
    needs_package,
    per_channel,
    reason_of,
)
from xgpt_fairseq.vision.backbones.broken_packages import torchvision_advice
from xgpt_fairseq.vision.families import stay_offline
from xgpt_fairseq.vision.packing import Packed


def load(name: str, options: BackboneOptions) -> Backbone:
    """Load a backbone by timm's name for it, with its published weights or those of a file.

    A layer is a number as timm's `forward_intermediates` counts them: from 0, or from the end, -1; None: what timm
    calls features, which for EfficientNet has the last convolution, and for ViT the last normalisation.

    Raises:
        DataError: timm is not installed, knows no such model or layer, or the weights are missing or damaged.
    """
    stay_offline(options.offline)
    try:
        import timm
        from timm.data import resolve_model_data_config
    except Exception as error:  # also what torchvision raises
        advice = torchvision_advice()
        raise DataError(f"{name}: {advice}") if advice else needs_package(name, "timm", error) from None
    model_name = name.removeprefix("timm:")
    model = _create(timm, name, model_name, options)
    config = resolve_model_data_config(model)
    fixed = bool(getattr(getattr(model, "patch_embed", None), "strict_img_size", False)) or bool(
        model.pretrained_cfg.get("fixed_input_size") and not getattr(model, "dynamic_img_size", False)
    )
    preprocessing = Preprocessing(
        mean=per_channel(config["mean"]),
        std=per_channel(config["std"]),
        image_size=config["input_size"][-1],
        interpolation=config["interpolation"],
        fixed_size=fixed,
    )
    origin = Origin(
        tensors_sha256(model.state_dict()),
        license=None if options.weights else model.pretrained_cfg.get("license"),
        versions={package: version(package) for package in ("torch", "timm")},
    )
    network = _Features(name, model, options.layer)
    return Backbone(
        name,
        network,
        preprocessing=preprocessing,
        origin=origin,
        layer=options.layer,
        packed=lambda: Packed(model.state_dict(), license=origin.license),
    )


class _Features(nn.Module):
    """A layer's output."""

    def __init__(self, name: str, model: Any, layer: str | None) -> None:
        super().__init__()
        if layer is not None and not hasattr(model, "forward_intermediates"):
            raise DataError(f"{name}: timm gives only the last layer of this model; leave --layer out")
        self.model = model
        self.layer = layer_number(name, layer)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) → what timm calls features, in one of `base.Layout`'s kinds; a map for a chosen layer."""
        if self.layer is None:
            features: Tensor = self.model.forward_features(x)
            return features
        try:
            [found] = self.model.forward_intermediates(
                x, indices=[self.layer], output_fmt="NCHW", intermediates_only=True
            )
        except (AssertionError, IndexError):
            raise DataError(f"{self.name} has no layer {self.layer}") from None
        chosen: Tensor = found
        return chosen


def _create(timm: Any, name: str, model_name: str, options: BackboneOptions) -> Any:
    if model_name.partition(".")[0] not in timm.list_models():
        raise DataError(f"{name}: timm {timm.__version__} has no such model; timm.list_models('*vit*') finds names")
    if options.weights is not None and not options.weights.is_file():
        raise DataError(f"{name}: {options.weights} is no file")
    found = None
    given: dict[str, Any] = {"pretrained": options.weights is None, "num_classes": 0}
    flexible = {"dynamic_img_size": True}  # ViTs that can interpolate their position embeddings
    try:
        if options.weights is None and stay_offline(options.offline):
            _check_cached(timm, name, model_name)
        try:
            model = timm.create_model(model_name, **given, **flexible)
        except TypeError:
            model = timm.create_model(model_name, **given)
        if options.weights is not None:
            # timm's own loading: it finds averaged weights in a training checkpoint, and reads JAX's files of ViTs
            found = timm.models.load_checkpoint(model, str(options.weights), strict=False, weights_only=True)
    except DataError:
        raise
    except Exception as error:  # hubs, files and shapes fail in many ways
        fetch = _how_to_fetch(model_name, options)
        raise DataError(f"{name}: the weights can't be loaded: {reason_of(error)}{fetch}") from error
    finally:
        # timm allows argparse.Namespace while it loads, and then takes back that fairseq's checkpoints may hold it, too
        torch.serialization.add_safe_globals(SAFE_GLOBALS)
    if missing := sorted(getattr(found, "missing_keys", ())):  # what it has besides may be a classifier
        raise DataError(
            f"{name}: {options.weights} lacks weights: {', '.join(missing[:3])}; "
            "they need the names that timm has for them, which may not be those of the authors"
        )
    return model.eval()


def _check_cached(timm: Any, name: str, model_name: str) -> None:
    """Check that published weights that are not on the hub lie in torch's cache: timm would fetch them, also offline.

    Raises:
        DataError: they don't.
    """
    published = timm.get_pretrained_cfg(model_name)
    if published is None or published.hf_hub_id or not published.url:
        return
    # some addresses come with the name of the file
    url, file_name = (published.url, None) if isinstance(published.url, str) else published.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / (file_name or Path(urlsplit(url).path).name)
    if not file.exists():
        raise DataError(f"{name}: {file} is missing; fetch it elsewhere: curl -LO {url}")


def _how_to_fetch(model_name: str, options: BackboneOptions) -> str:
    if options.weights is not None:
        return ""
    return (
        f". Where there is a network: python -c \"import timm; timm.create_model('{model_name}', pretrained=True)\" "
        "fetches them to its cache; or give --weights FILE"
    )
