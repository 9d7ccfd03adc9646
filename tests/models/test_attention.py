"""Attention against a loop over heads and queries in float64 (`reference.py`), in all the ways that layers call it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models import reference
from xgpt_fairseq.kernels.attention import eager_attention
from xgpt_fairseq.kernels.grouping import Groups
from xgpt_fairseq.kernels.switch import plain
from xgpt_fairseq.models.attention import Attention

SEED = st.integers(0, 99)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))  # heads, width of a head, queries


def layer_of(heads: int, width: int, seed: int) -> Attention:
    torch.manual_seed(seed)
    return Attention(hidden_size=heads * width, heads=heads, dropout=0.0).eval()


def projected(layer: Attention, x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values (T, H) of a row (T, H), in float64."""
    weight, bias = layer.qkv.weight.detach().double().numpy(), layer.qkv.bias.detach().double().numpy()
    q, k, v = np.split(x.double().numpy() @ weight.T + bias, 3, axis=-1)
    return q, k, v


def put_out(layer: Attention, x: np.ndarray) -> np.ndarray:
    return x @ layer.out.weight.detach().double().numpy().T + layer.out.bias.detach().double().numpy()


@given(sizes=SIZES, images=st.integers(1, 3), keys=st.integers(1, 5), causal=st.booleans(), seed=SEED)
@settings(max_examples=50)
def test_self_and_cross_attention(sizes, images, keys, causal, seed):
    heads, width, queries = sizes
    layer = layer_of(heads, width, seed)
    x, states = torch.randn(images, queries, heads * width), torch.randn(images, keys, heads * width)
    mask = torch.rand(images, keys) < 0.5
    mask[:, 0] = True  # an image has a region
    with torch.no_grad():
        q, k, v = layer.queries_keys_values(x)
        itself = layer(q, k, v, causal=causal)
        q, k, v = layer.queries_keys_values(x, states)
        for found, expected in zip((layer.queries(x), *layer.keys_values(states)), (q, k, v), strict=True):
            torch.testing.assert_close(found, expected)
        chosen = layer(q, k, v, mask=mask[:, None, None])
        everywhere = layer(q, k, v)
        with plain():
            fused = layer(q, k, v, mask=mask[:, None, None])
        written_out = layer.out(eager_attention(q, k, v, mask=mask[:, None, None]))
    for image in range(images):
        own_q, own_k, own_v = projected(layer, x[image])
        expected = put_out(layer, reference.multi_head(own_q, own_k, own_v, heads, causal=causal))
        np.testing.assert_allclose(itself[image].numpy(), expected, rtol=1e-4, atol=1e-5)
        _, all_k, all_v = projected(layer, states[image])
        for found, seen in (
            (chosen, mask[image].numpy()),
            (fused, mask[image].numpy()),
            (written_out, mask[image].numpy()),
            (everywhere, slice(None)),
        ):
            expected = put_out(layer, reference.multi_head(own_q, all_k[seen], all_v[seen], heads))
            np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-4, atol=1e-5)


@given(
    sizes=SIZES, images=st.integers(1, 3), group=st.integers(1, 3), regions=st.integers(1, 4), seed=st.integers(0, 9)
)
@settings(max_examples=50)
def test_joint_attention_is_one_softmax_over_an_image_and_a_text(sizes, images, group, regions, seed):
    heads, width, queries = sizes
    layer = layer_of(heads, width, seed)
    captions = images * group
    x, states = torch.randn(captions, queries, heads * width), torch.randn(images, regions, heads * width)
    mask = torch.rand(images, regions) < 0.5
    mask[:, 0] = True
    with torch.no_grad():
        found = layer.prefix_lm(
            layer.queries(x),
            *layer.keys_values(states),
            *layer.keys_values(x),
            prefix_mask=mask[:, None, None],
            mask=torch.ones(queries, queries, dtype=torch.bool).tril(),
            groups=Groups(),
        )
    for caption in range(captions):
        image = caption // group
        seen = states[image][mask[image]]
        _, k, v = projected(layer, torch.cat([seen, x[caption]]))
        q, _, _ = projected(layer, x[caption])
        padded = np.concatenate([np.zeros((len(seen), q.shape[1])), q])  # the loop counts queries from the first key
        expected = reference.multi_head(padded, k, v, heads, after=len(seen))[len(seen) :]
        np.testing.assert_allclose(found[caption].numpy(), put_out(layer, expected), rtol=1e-4, atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="--hidden-size 10 is not a multiple of --attention-heads 4"):
        Attention(hidden_size=10, heads=4, dropout=0.0)
