"""Tiny networks of random weights, and torchvision where it can't be imported as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from xgpt_fairseq.vision.backbones.broken_packages import hide_broken
from xgpt_fairseq.vision.detectors.boxes import suppress

_DECLARED: list[Any] = []


def import_torchvision() -> None:
    """PyPI's torchvision can't be imported beside torch for CPUs unless these operators are declared."""
    if sys.modules.get("torchvision", ...) is None:  # hidden
        del sys.modules["torchvision"]
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # kept for the whole process
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _nms, "CPU")
        _DECLARED.append(library)
        import torchvision  # noqa: F401


def import_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision's detectors run where its compiled operators are missing: with those that are declared here."""
    import_torchvision()
    if _DECLARED:
        from torchvision.ops import boxes

        monkeypatch.setattr(boxes, "_assert_has_ops", lambda: None)
        monkeypatch.setattr("torchvision.ops.poolers.roi_align", _roi_align)


def _nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    return suppress(dets, scores, threshold=iou_threshold, limit=len(dets))


def _roi_align(
    maps: torch.Tensor, boxes: torch.Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> torch.Tensor:
    """RoIAlign by torch's own bilinear sampling; torchvision's program in Python needs a second for a photo.

    Args:
        maps: (B, C, H, W).
        boxes: (N, 5) number of the photo, and x1 y1 x2 y2 in pixels.
    """
    height, width = maps.shape[2:]
    low, high = (boxes[:, 1:] * spatial_scale).split(2, dim=1)
    sides = (high - low).clamp(min=1)
    axes = []
    for axis, (cells, size) in enumerate(zip(output_size[::-1], (width, height), strict=True)):
        parts = (torch.arange(cells * sampling_ratio) + 0.5) / (cells * sampling_ratio)
        axes.append((2 * (low[:, axis, None] + parts * sides[:, axis, None]) + 1) / size - 1)
    x, y = axes
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)
    options = {"padding_mode": "border", "align_corners": False}
    photos = boxes[:, 0].long().tolist()
    sampled = [F.grid_sample(maps[n : n + 1], one[None], **options) for n, one in zip(photos, grid, strict=True)]
    none = maps.new_zeros(0, maps.shape[1], *(sampling_ratio * side for side in output_size))
    return F.avg_pool2d(torch.cat([none, *sampled]), sampling_ratio)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def configurations() -> dict[str, Callable[[], Any]]:
    hide_broken("torchvision", "torchaudio")
    import transformers as hf

    vision = {**SIZES, "intermediate_size": 64}
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return {
        "clip": lambda: hf.CLIPConfig(vision_config=vision, text_config=text),
        "siglip": lambda: hf.SiglipVisionConfig(**vision),
        "dinov2": lambda: hf.Dinov2Config(**SIZES),
        "dinov3": lambda: hf.DINOv3ViTConfig(**vision, num_register_tokens=4),
        "vit": lambda: hf.ViTConfig(**vision),
        "swin": lambda: hf.SwinConfig(
            embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=32, patch_size=4
        ),
        "convnext": lambda: hf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
        "vit_mae": lambda: hf.ViTMAEConfig(**vision),
        "sam_vision_model": lambda: hf.SamVisionConfig(
            **SIZES, output_channels=16, mlp_dim=64, window_size=2, global_attn_indexes=[0]
        ),
        "resnet": lambda: hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
    }


class FixedTokens(torch.nn.Module):
    """Sixteen vectors for each photo, of any size, as a detector with queries has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)).repeat(1, 16).unflatten(1, (16, 3))


class Returning(torch.nn.Module):
    """A network whose output for each photo is *output*."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: torch.Tensor, **options: Any) -> object:
        return self.output


PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.48, 0.45, 0.4],
    "image_std": [0.26, 0.25, 0.27],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 32},
}


def saved(name: str, folder: Path, **processor: Any) -> Any:
    """Save a tiny model, and return what sees of it."""
    configuration = configurations()[name]()
    from transformers import AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(configuration).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **processor}))
    return getattr(model, "vision_model", model)
