"""Checkpoints of Hugging Face's transformers that differ from what save_pretrained writes of a bare network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.vision.backbones.tiny import configurations, saved
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.registry import load_backbone


def test_a_classifier_has_no_pooler(tmp_path: Path) -> None:
    """Its features do not need one, and its weights are the same at each load, also of a packed file."""
    from safetensors.torch import load_file, save_file

    saved("vit", tmp_path / "vit")  # for its preprocessor_config.json
    from transformers import ViTForImageClassification

    model = ViTForImageClassification(configurations()["vit"]()).eval()
    model.save_pretrained(tmp_path / "vit")
    name = f"transformers:{tmp_path / 'vit'}"
    backbone, again = load_backbone(name), load_backbone(name)
    backbone.packed().write(tmp_path / "packed.safetensors")
    packed = load_backbone("transformers:vit", BackboneOptions(weights=tmp_path / "packed.safetensors"))
    given = torch.randint(256, (1, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        x = (given.float() - backbone.mean.view(3)) / backbone.std.view(3)
        expected = model.vit(pixel_values=x.permute(0, 3, 1, 2)).last_hidden_state[:, 1:]  # without the class token
        for each in (backbone, again, packed):
            assert each.identity == backbone.identity
            torch.testing.assert_close(each(given).flatten(2).transpose(1, 2), expected, atol=1e-4, rtol=1e-4)
    tensors = load_file(tmp_path / "vit" / "model.safetensors")
    del tensors[next(key for key in tensors if "query" in key or "q_proj" in key)]
    save_file(tensors, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"vit lacks weights: [^,]*layer[^,]*$"):
        load_backbone(name)
