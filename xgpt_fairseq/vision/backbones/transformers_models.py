"""Vision networks of Hugging Face's transformers: `transformers:facebook/dinov2-base`, CLIP, SigLIP, DINOv3, Swin, …

Of a model of texts and images, such as CLIP, the part that sees is loaded. Code from a hub is never run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

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
from xgpt_fairseq.vision.backbones.broken_packages import hide_broken
from xgpt_fairseq.vision.families import stay_offline
from xgpt_fairseq.vision.packing import Packed, packed_metadata

# Pillow's numbers of resampling filters, which preprocessor_config.json has.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# Switches in preprocessor_config.json of what changes pixels, and is not done here.
NOT_DONE: Final = ("rescale_offset", "do_flip_channel_order", "do_grayscale")
# What image processors, by the beginning of their names, do where that file doesn't say it, and others don't.
DEFAULTS: Final[Mapping[str, Mapping[str, bool]]] = {
    "EfficientNet": {"include_top": True, "do_center_crop": False},
    "MobileViT": {"do_flip_channel_order": True, "do_normalize": False},
}


def load(name: str, options: BackboneOptions) -> Backbone:
    """Load a backbone from the Hugging Face hub, its cache, or a folder of `save_pretrained`.

    A layer is the number of one of transformers' `hidden_states`: 0 is the embeddings, -1 the last, which may lack a
    normalisation that `last_hidden_state`, the default, has.

    Raises:
        DataError: transformers is not installed, the model can't be fetched or read, has no vision part, or lacks
            weights.
    """
    offline = stay_offline(options.offline)
    hide_broken("torchvision", "torchaudio")
    try:
        import transformers
        from transformers.image_processing_base import ImageProcessingMixin
    except Exception as error:
        raise needs_package(name, "transformers", error) from None
    place, _, asked = name.removeprefix("transformers:").partition("@")
    where = str(options.weights or place)
    revision = None if options.weights else (options.revision or asked)  # a commit is exacter than @main
    hub: dict[str, Any] = {"revision": revision} if revision else {}
    hub["local_files_only"] = offline
    if options.weights is not None and options.weights.is_file():
        model, config, processor = _unpack(name, options.weights)
        return _backbone(name, name, model, config, processor, options, license=None, revision=None)
    try:
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False, **hub)
        commit = getattr(config, "_commit_hash", None)
        config = getattr(config, "vision_config", config)
        model, report = transformers.AutoModel.from_pretrained(
            where, config=config, trust_remote_code=False, output_loading_info=True, dtype="float32", **hub
        )
        processor, _ = ImageProcessingMixin.get_image_processor_dict(where, **hub)
    except Exception as error:  # hubs, files and configurations fail in many ways
        raise DataError(f"{name}: {reason_of(error)}{_how_to_fetch(where, revision)}") from error
    if missing := _without_pooler(model, report["missing_keys"]):
        raise DataError(f"{name}: {where} lacks weights: {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}")
    shown = name if options.weights or not Path(place).is_dir() else f"transformers:{Path(place).resolve().name}"
    return _backbone(name, shown, model, config, processor, options, license=_license(where, revision), revision=commit)


def _backbone(
    name: str,
    shown: str,
    model: Any,
    config: Any,
    processor: dict[str, Any],
    options: BackboneOptions,
    *,
    license: str | None,
    revision: str | None,
) -> Backbone:
    """The backbone of a loaded *model*, which is called *name* in messages, and *shown* in stores."""
    model.eval()
    if "pixel_values" not in (parameters := inspect.signature(model.forward).parameters):
        raise DataError(f"{name} is no model of images: it reads {', '.join(list(parameters)[:3])}")
    network = _Hidden(name, model, options.layer, interpolate="interpolate_pos_encoding" in parameters)
    origin = Origin(
        tensors_sha256(model.state_dict()),
        revision=revision,
        license=license,
        versions={package: version(package) for package in ("torch", "transformers")},
    )
    texts = {"config": config.to_json_string(use_diff=False), "processor": json.dumps(processor)}
    return Backbone(
        shown,
        network,
        preprocessing=_preprocessing(name, processor, config),
        origin=origin,
        layer=options.layer,
        packed=lambda: Packed(model.state_dict(), texts, license),
    )


def _without_pooler(model: Any, missing: Iterable[str]) -> list[str]:
    """The names of weights that are *missing* and decide features, sorted.

    Checkpoints of classifiers (`google/vit-base-patch16-224`) have no pooler, which is behind all layers. It is taken
    out of a *model* that can be without one: with random weights in it, each load would have another SHA-256.
    """
    names = sorted(missing)
    of_pooler = [name for name in names if name.startswith("pooler.")]
    if of_pooler and "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None
        return [name for name in names if name not in of_pooler]
    return names


def _unpack(name: str, path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The model, its configuration and that of its preprocessing, from a file that a bundle has.

    Raises:
        DataError: it is none, or damaged.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    texts = packed_metadata(path)
    if not {"config", "processor"} <= set(texts):
        raise DataError(f"{name}: {path} has no configuration; name a folder of save_pretrained")
    try:
        config = AutoConfig.for_model(**json.loads(texts["config"]))
        model = AutoModel.from_config(config)
        tensors = load_file(path)
        _without_pooler(model, model.state_dict().keys() - tensors.keys())
        model.load_state_dict(tensors)
        processor: dict[str, Any] = json.loads(texts["processor"])
    except Exception as error:  # configurations fail in many ways
        raise DataError(f"{name}: {path}: {reason_of(error)}") from error
    return model, config, processor


class _Hidden(nn.Module):
    """A layer's output."""

    def __init__(self, name: str, model: Any, layer: str | None, *, interpolate: bool) -> None:
        super().__init__()
        self.model = model
        self.options = {"interpolate_pos_encoding": True} if interpolate else {}
        self.layer = layer_number(name, layer)
        self.name = name

    def forward(self, x: Tensor) -> Tensor | None:
        """x (B, 3, H, W) → tokens (B, T, D), or a map (B, D, h, w); None of a model that has no such output."""
        if self.layer is None:
            last: Tensor | None = getattr(self.model(pixel_values=x, **self.options), "last_hidden_state", None)
            return last
        output = self.model(pixel_values=x, output_hidden_states=True, **self.options)
        if (found := getattr(output, "hidden_states", None)) is None:
            raise DataError(f"{self.name} has no layers that can be chosen (hidden_states); leave --layer out")
        if not -len(found) <= self.layer < len(found):
            raise DataError(f"{self.name} has no layer {self.layer}; there are 0 to {len(found) - 1}")
        chosen: Tensor = found[self.layer]
        return chosen


def _preprocessing(name: str, processor: dict[str, Any], config: Any) -> Preprocessing:
    """What the model's preprocessor_config.json says.

    Raises:
        DataError: it lacks something, or changes pixels in another way than ours.
    """
    processor = processor.get("image_processor", processor)
    kind = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    for beginning, defaults in DEFAULTS.items():
        if kind.startswith(beginning):
            processor = {**defaults, **processor}
    if changed := [switch for switch in NOT_DONE if processor.get(switch)]:
        raise DataError(
            f"{name}: preprocessor_config.json asks for {changed[0]}{f' (as {kind} does)' if kind else ''}, which is "
            "not done here: the network would see other pixels than in its training; choose another"
        )
    try:
        mean, std = per_channel(processor["image_mean"]), per_channel(processor["image_std"])
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{name}: preprocessor_config.json has no image_mean and image_std") from None
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    once_more = std if processor.get("include_top") else (255.0,) * 3  # EfficientNet divides by the deviation twice
    if not processor.get("do_normalize", True):
        mean, std = (0.0,) * 3, (255.0,) * 3
    std = (std[0] * once_more[0] / 255, std[1] * once_more[1] / 255, std[2] * once_more[2] / 255)
    unit = 1 / (255 * scale)  # of what the network gets for a value 1 of the normalised pixels
    return Preprocessing(
        mean=(mean[0] * unit, mean[1] * unit, mean[2] * unit),
        std=(std[0] * unit, std[1] * unit, std[2] * unit),
        image_size=_size(name, processor, config),
        interpolation=RESAMPLING.get(number := processor.get("resample", 2), str(number)),
    )


def _size(name: str, processor: dict[str, Any], config: Any) -> int:
    """The side of the squares that the model was trained on."""
    crop = processor.get("crop_size") if processor.get("do_center_crop", True) else None
    for found in (crop, processor.get("size"), getattr(config, "image_size", None)):
        if isinstance(found, dict):
            found = found.get("height") or found.get("shortest_edge")
        if isinstance(found, list | tuple):
            found = found[0]
        if isinstance(found, int) and found > 0:
            return found
    raise DataError(f"{name}: neither preprocessor_config.json nor config.json says the size of its images")


def _license(where: str, revision: str | None) -> str | None:
    """The licence in the model's card, if that lies in the folder or in the hub's cache: nothing is fetched for it."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    card: Any = Path(where) / "README.md"
    if not card.is_file():
        if Path(where).is_dir():
            return None
        card = try_to_load_from_cache(where, "README.md", revision=revision)
        if not isinstance(card, str):
            return None
    try:
        found = ModelCard.load(card).data.license
    except Exception:  # cards are written by people
        return None
    return found if isinstance(found, str) else None


def _how_to_fetch(where: str, revision: str | None) -> str:
    if Path(where).exists():
        return ""
    at = f" --revision {revision}" if revision else ""
    return f". Where there is a network: hf download {where}{at}; then --offline uses that, or --weights FOLDER"
