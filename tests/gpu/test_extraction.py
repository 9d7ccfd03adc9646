"""Regions of photos on a GPU: as on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import Photo


def test_features_are_those_of_a_cpu(device, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default: the extractor turns it off
    rng = np.random.default_rng(0)
    photos = [Photo(rng.integers(0, 256, (192, 224, 3), dtype=np.uint8), (224, 192)) for _ in range(3)]
    expected, found = (
        RegionExtractor(grid=3, image_size=224, device=name).extract(photos) for name in ("cpu", device.type)
    )
    for one, other in zip(expected, found, strict=True):
        features = one.features.astype(np.float32)
        assert np.abs(features - other.features).max() < 1e-3 * np.abs(features).max()
        np.testing.assert_array_equal(one.boxes, other.boxes)
