"""What checkpoints of Hugging Face's transformers lack, and what they say of pixels and revisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vision.backbones.tiny import PROCESSOR, configurations, saved
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.broken_packages import hide_broken
from xgpt_fairseq.vision.backbones.registry import load_backbone
from xgpt_fairseq.vision.backbones.transformers_models import _preprocessing


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


@pytest.mark.parametrize(
    ("cropped", "size"), [({"do_center_crop": False}, 32), ({"do_center_crop": True}, 24), ({}, 24)]
)
def test_a_crop_counts_where_photos_are_cropped(cropped: dict[str, bool], size: int) -> None:
    processor = {**PROCESSOR, "crop_size": {"height": 24, "width": 24}, **cropped}
    assert _preprocessing("transformers:a/b", processor, None).image_size == size


@pytest.mark.parametrize(
    ("processor", "factors"),
    [
        ({"image_processor_type": "EfficientNetImageProcessor"}, [1, 2]),
        ({"include_top": True}, [1, 2]),
        ({"image_processor_type": "EfficientNetImageProcessor", "include_top": False}, [1, 1]),
        ({"image_processor_type": "EfficientNetImageProcessor", "do_normalize": False}, [0, 1]),
        ({"feature_extractor_type": "MobileViTFeatureExtractor", "do_flip_channel_order": False}, [0, 0]),
    ],
)
def test_normalised_once_twice_or_never(processor: dict[str, Any], factors: list[int]) -> None:
    """By hand for a value of 100, with pixels that are divided by 127.5.

    *factors*: how often the mean is subtracted, and how often the deviation divides.
    """
    common = {name: value for name, value in PROCESSOR.items() if name != "do_normalize"}
    found = _preprocessing("transformers:a/b", {**common, "rescale_factor": 1 / 127.5, **processor}, None)
    expected = (100 / 127.5 - factors[0] * 0.48) / 0.26 ** factors[1]
    assert (100 - found.mean[0]) / found.std[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("processor", "switch"),
    [
        ({"feature_extractor_type": "MobileViTFeatureExtractor"}, "do_flip_channel_order"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True}, "rescale_offset"),
        ({"image_processor": {**PROCESSOR, "do_grayscale": True}}, "do_grayscale"),
    ],
)
def test_pixels_that_are_made_in_another_way(processor: dict[str, Any], switch: str) -> None:
    with pytest.raises(DataError, match=f"^transformers:a/b: .*asks for {switch}.*, which is not d"):
        _preprocessing("transformers:a/b", {**PROCESSOR, **processor}, None)


@pytest.mark.parametrize(("recorded", "used"), [("0c1d", "0c1d"), (None, "main")])
def test_a_stores_commit_counts_rather_than_the_branch_in_the_name(
    recorded: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_broken("torchvision", "torchaudio")
    from transformers import AutoConfig

    def fetch(where: str, **options: Any) -> None:
        raise OSError(f"{where} at {options['revision']}")

    monkeypatch.setattr(AutoConfig, "from_pretrained", fetch)
    message = f"OSError: a/b at {used}. Where there is a network: hf download a/b --revision {used};"
    with pytest.raises(DataError, match=message):
        load_backbone("transformers:a/b@main", BackboneOptions(offline=True, revision=recorded))
