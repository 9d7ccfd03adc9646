"""What the structures of section 6 share, and what their layers see."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.models.small import (
    HIDDEN,
    LAYERS,
    build,
    images,
)
from xgpt_fairseq.models.layers import EncoderStates
from xgpt_fairseq.models.xgpt import SHARING_LAYERS


def test_what_the_structures_share():
    """EncDec has a stack for the decoder, with cross-attention of its own; the others have the encoder's layers."""
    for sharing in ("enc-dec-share", "enc"):
        model = build(sharing=sharing)
        assert model.decoder.layers is model.encoder.layers
        assert not any(name.startswith("decoder.layers") for name in model.state_dict())
        copied = copy.deepcopy(model)
        assert copied.decoder.layers is copied.encoder.layers is not model.encoder.layers
    model = build(sharing="enc-dec")
    encoder, decoder = set(model.encoder.parameters()), set(model.decoder.parameters())
    assert not encoder & decoder
    assert set(model.decoder.layers.parameters()) < decoder
    cross = {name.split(".")[3] for name in model.state_dict() if name.startswith("decoder.layers.0.cross")}
    assert cross == {"cross_attention", "cross_norm"}
    layers = [sum(p.numel() for p in stack.layers.parameters()) for stack in (model.encoder, model.decoder)]
    attention = 4 * (HIDDEN * HIDDEN + HIDDEN) + 2 * HIDDEN
    assert layers[1] - layers[0] == LAYERS * attention


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_no_position_sees_later_words(sharing):
    model = build(sharing=sharing)
    batch = images([6])
    tokens = torch.randint(4, 24, (1, 8))
    with torch.no_grad():
        before, _ = model(**batch, prev_output_tokens=tokens)
        for changed in range(8):
            other = tokens.clone()
            other[0, changed] = 4 + (other[0, changed] - 3) % 20
            after, _ = model(**batch, prev_output_tokens=other)
            assert torch.equal(before[:, :changed], after[:, :changed])
            assert not torch.equal(before[:, changed], after[:, changed])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="--hidden-size 16 is not a multiple of --attention-heads 3"):
        build(attention_heads=3)


def test_keys_serve_the_captions_of_an_image_or_are_copied_for_each():
    states, k, v = torch.randn(4, 3, 8), torch.randn(4, 2, 3, 4), torch.randn(4, 2, 3, 4)
    mask = torch.tensor([[True] * 3, [True, False, False], [True] * 3, [True] * 3])[:, None, None]
    in_equal_groups = EncoderStates(states, mask)
    in_unequal_groups = EncoderStates(states, mask, torch.tensor([0, 0, 1, 2, 3]))
    for encoded in (in_equal_groups, in_unequal_groups):
        assert all(found is given for found, given in zip(encoded.of_groups(k, v), (k, v, mask), strict=True))
    index = [0, 0, 0, 0, 1, 2, 3]  # four groups of four would be 16 places for 7
    copied = EncoderStates(states, mask, torch.tensor(index)).of_groups(k, v)
    for found, given in zip(copied, (k, v, mask), strict=True):
        assert torch.equal(found, given[index])
    kept = EncoderStates(states, mask, keys_values=((k, v),)).kept(torch.tensor([1, 2, 3]))
    assert torch.equal(kept.states, states[1:]) and torch.equal(kept.mask, mask[1:])
    assert torch.equal(kept.keys_values[0][0], k[1:]) and torch.equal(kept.keys_values[0][1], v[1:])
