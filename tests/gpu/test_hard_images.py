"""The nearest images, found by a GPU: those that a CPU finds."""

from __future__ import annotations

import numpy as np

from xgpt_fairseq.data.hard_images import BLOCK, nearest_images


def test_a_gpu_finds_the_same(device):
    features = np.random.default_rng(1).standard_normal((BLOCK + 500, 64)).astype(np.float32)
    features[7] = 0
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    expected, found = (nearest_images(features, 100, where) for where in ("cpu", str(device)))
    assert found.shape == expected.shape and not (found == np.arange(len(found))[:, None]).any()
    near = [np.einsum("id,icd->ic", unit, unit[places]) for places in (expected, found)]
    np.testing.assert_allclose(near[0], near[1], atol=1e-5)
