"""torchvision's detectors, with random weights, against torchvision's own program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vision.backbones.tiny import import_detectors
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision import families
from xgpt_fairseq.vision.detector_extractor import DetectorExtractor
from xgpt_fairseq.vision.detectors.base import DetectorOptions
from xgpt_fairseq.vision.detectors.registry import load_detector
from xgpt_fairseq.vision.pooling import WHOLE_LABEL
from xgpt_fairseq.vision.rebuilding import rebuild

SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Any:
    import_detectors(monkeypatch)
    from torchvision import models

    return models


def random_model(models: Any, name: str = SMALL, classes: int = 4) -> Any:
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
    with torch.no_grad():  # so that some boxes are confident
        model.roi_heads.box_predictor.cls_score.weight *= 6
        model.rpn.head.bbox_pred.weight *= 5
    return model


def saved(models: Any, folder: Path) -> tuple[Any, DetectorOptions]:
    model = random_model(models)
    torch.save(model.state_dict(), folder / "weights.pth")
    return model, DetectorOptions(weights=folder / "weights.pth")


def test_boxes_are_torchvisions_and_features_those_of_its_box_head(models: Any, tmp_path: Path) -> None:
    model, options = saved(models, tmp_path)
    detector = load_detector(f"torchvision:{SMALL}", options)
    assert (detector.form.shorter_side, detector.form.image_size) == (320, 640)
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(0, 255, (2, 320, 400, 3), dtype=np.uint8))
    with torch.inference_mode():
        found = detector.detect(pixels, [(500, 400)] * 2, min_regions=1, max_regions=9)
        images = [each.permute(2, 0, 1).float() / 255 for each in pixels]
        kept: list[Any] = []
        model.roi_heads.box_head.register_forward_hook(lambda *given: kept.append(given[2]))
        expected = model(images)
        of_boxes = []
        inputs = model.transform(images)[0]
        maps = model.backbone(inputs.tensors)
        for number, each in enumerate(found):
            one = {level: of_level[number : number + 1] for level, of_level in maps.items()}
            pooled = model.roi_heads.box_roi_pool(one, [each.boxes], [(320, 400)])
            of_boxes.append(model.roi_heads.box_head(pooled))
    assert kept
    for each, detected, features in zip(found, expected, of_boxes, strict=True):
        count = min(len(detected["boxes"]), 8)
        assert count > 2
        torch.testing.assert_close(each.boxes[0], torch.tensor([0.0, 0, 400, 320]))
        torch.testing.assert_close(each.boxes[1:], detected["boxes"][:count], atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(each.scores[1:], detected["scores"][:count], atol=1e-4, rtol=1e-3)
        assert each.labels == (WHOLE_LABEL, *map(str, detected["labels"][:count].tolist()))
        assert each.truncated == (len(detected["boxes"]) > 8)
        torch.testing.assert_close(each.features, features, atol=1e-4, rtol=1e-3)


def test_published_weights_are_loaded_as_torchvision_loads_them(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of fasterrcnn_resnet50_fpn are meant for normalisation that adds nothing to the variance."""
    for variable in families._OFFLINE:  # which another test may have set for its process
        monkeypatch.delenv(variable, raising=False)
    name = "fasterrcnn_resnet50_fpn"
    published = models.get_model_weights(name).DEFAULT
    state = random_model(models, name, classes=91).state_dict()
    state = {key: 0.001 * torch.ones_like(v) if key.endswith("running_var") else v for key, v in state.items()}
    monkeypatch.setattr(type(published), "get_state_dict", lambda *_, **__: state)
    theirs = models.get_model(name, weights=published).eval()
    ours = load_detector(f"torchvision:{name}")
    normed = {key: module for key, module in theirs.named_modules() if type(module).__name__ == "FrozenBatchNorm2d"}
    assert len(normed) == 53
    for key, module in normed.items():
        x = torch.randn(1, len(module.bias), 2, 2)
        torch.testing.assert_close(ours.model.get_submodule(key)(x), module(x))
    assert ours.labels == published.meta["categories"]


def test_packed_weights_are_those_that_were_loaded(models: Any, tmp_path: Path) -> None:
    """Published ones of frozen normalisation have no number of batches, which the model here has."""
    model, options = saved(models, tmp_path)
    state = {name: each for name, each in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(state) < len(model.state_dict())
    torch.save(state, tmp_path / "weights.pth")
    extractor = DetectorExtractor(f"torchvision:{SMALL}", options=options, device="cpu")
    packed = extractor.packed
    assert packed is not None
    packed.write(tmp_path / "packed.safetensors")
    again = rebuild(extractor.settings, weights=tmp_path / "packed.safetensors", device="cpu")
    assert again.settings == extractor.settings


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet50", "torchvision has no such detector; torchvision:fasterrcnn"),
        ("torchvision:nothing", "torchvision has no such detector"),
        ("other", "there is no detector 'other'; there are vg-bottom-up, torchvision:NAME"),
        ("torchvision:retinanet_resnet50_fpn", "has no box head"),
    ],
)
def test_names_that_are_none(name: str, message: str, models: Any, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=message):
        load_detector(name, DetectorOptions(weights=tmp_path / "weights.pth"))


def test_weights_that_are_refused(models: Any, tmp_path: Path) -> None:
    _, options = saved(models, tmp_path)
    with pytest.raises(DataError, match="do not fit"):
        load_detector("torchvision:fasterrcnn_resnet50_fpn_v2", options)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    with pytest.raises(DataError, match="2 names; the detector knows 3"):
        load_detector(f"torchvision:{SMALL}", DetectorOptions(weights=options.weights, label_names=[names]))
    with pytest.raises(DataError, match="this detector knows objects alone"):
        load_detector(f"torchvision:{SMALL}", DetectorOptions(weights=options.weights, label_names=[names, names]))


def test_published_weights_are_not_fetched_offline(
    models: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match="is missing; fetch it elsewhere: curl -LO https://"):
        load_detector(f"torchvision:{SMALL}", DetectorOptions(offline=True))
