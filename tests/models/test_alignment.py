"""IDA's alignment against the paper's formula, word by word and region by region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from xgpt_fairseq.models.alignment import Alignment


@pytest.mark.parametrize("image_index", [None, [0, 1, 1, 1]], ids=str)
def test_equals_the_formula(image_index):
    torch.manual_seed(0)
    hidden, counts = 6, [4, 2]
    module = Alignment(hidden_size=hidden).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    words, regions = torch.randn(4, 3, hidden).double(), torch.randn(2, 4, hidden).double()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])[:, None, None, :]
    index = None if image_index is None else torch.tensor(image_index)
    ours = module(words, regions, mask, index).detach().numpy()

    w_t = np.random.default_rng(1).normal(size=hidden)  # any value: it drops out of the softmax
    w_v, w_m = module.region_weight.detach().numpy(), module.product_weight.detach().numpy()
    for caption, image in enumerate(image_index or [0, 0, 1, 1]):
        for t in range(3):
            x = words[caption, t].numpy()
            v = regions[image, : counts[image]].numpy()
            a = [sum(w_t * x) + sum(w_v * v_j) + sum(w_m * (x * v_j)) for v_j in v]
            total = sum(math.exp(value) for value in a)
            mixed = sum(math.exp(value) / total * v_j for value, v_j in zip(a, v, strict=True))
            expected = mixed @ module.project.weight.detach().numpy().T + module.project.bias.detach().numpy()
            expected = 0.1 * (expected - expected.mean()) / math.sqrt(expected.var() + 1e-5)
            np.testing.assert_allclose(ours[caption, t], expected, atol=1e-6)  # the softmax is taken in float32


def test_nothing_of_words_by_regions_by_width_is_built():
    """The largest tensor that autograd keeps grows as T × N or N × H, never as T × N × H."""
    words_count, regions_count, hidden = 40, 50, 64
    module = Alignment(hidden_size=hidden)
    largest = 0

    def remember(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    words = torch.randn(2, words_count, hidden, requires_grad=True)
    regions = torch.randn(2, regions_count, hidden, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        module(words, regions, torch.ones(2, 1, 1, regions_count, dtype=torch.bool), None).sum().backward()
    assert 0 < largest <= 2 * max(words_count * regions_count, regions_count * hidden, words_count * hidden)


@pytest.mark.parametrize("hidden", [256, 768])
def test_words_begin_as_different_mixtures(hidden):
    """Of normalised words and regions, as the model has them: a word looks at few regions, another word at others."""
    torch.manual_seed(0)
    module = Alignment(hidden_size=hidden)
    words, regions = (torch.nn.functional.layer_norm(torch.randn(2, n, hidden), (hidden,)) for n in (12, 100))
    scores = (words * module.product_weight + module.region_weight) @ regions.transpose(1, 2)  # (2, 12, 100)
    assert 2 < float(scores.std(dim=-1).mean().detach()) < 5
    mask = torch.ones(2, 1, 1, 100, dtype=torch.bool)
    aligned = module(words, regions, mask, None).detach()  # (2, 12, hidden)
    between_words = float(aligned.var(dim=1).mean() / aligned.square().mean())
    assert between_words > 0.5


def test_it_begins_with_sharp_products_and_small_weights_of_regions():
    torch.manual_seed(0)
    module = Alignment(hidden_size=1600)
    for weight, spread in ((module.region_weight, 0.02), (module.product_weight, 4 / 40)):
        assert float(weight.detach().std()) == pytest.approx(spread, rel=0.1)
        assert abs(float(weight.detach().mean())) < 0.1 * spread
