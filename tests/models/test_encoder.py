"""What the encoder makes of padding, and how its states follow a search."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.models.small import (
    VARIANTS,
    build,
    images,
    one,
)
from xgpt_fairseq.kernels import attention
from xgpt_fairseq.models.xgpt import SHARING_LAYERS
from xgpt_fairseq.search.beam_search import CaptionGenerator


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_a_reordering_across_images_is_refused(sharing):
    model = build(sharing=sharing)
    encoder_out = model.encoder(**images([2, 3]))
    with pytest.raises(ValueError, match="rows of an image adjacent"):
        model.encoder.reorder_encoder_out(encoder_out, torch.tensor([0, 1, 0, 1]))


def test_enc_s_regions_never_see_the_text():
    """What the text attends to of an image does not depend on any parameter or token of the text."""
    model = build(sharing="enc")
    encoder_out = model.encoder(**images([4, 6]))
    model.decoder(torch.tensor([[2, 5, 6], [2, 7, 8]]), encoder_out)
    sums = [encoder_out["memory"].states.sum(), *(k.sum() + v.sum() for k, v in encoder_out["memory"].keys_values)]
    found = torch.autograd.grad(sum(sums), list(model.encoder.text.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_padding_never_changes_a_result(options):
    model = build(**options)
    batch = images([3, 100, 1])
    tokens = torch.tensor([[2, 5, 6, 1, 1], [2, 7, 8, 9, 10], [2, 1, 1, 1, 1]])
    with torch.no_grad():
        together, _ = model(**batch, prev_output_tokens=tokens)
        for i, length in enumerate([3, 5, 1]):
            alone, _ = model(**one(batch, i), prev_output_tokens=tokens[i : i + 1, :length])
            torch.testing.assert_close(together[i, :length], alone[0], atol=1e-5, rtol=1e-5)
        noisy = {**batch, "features": batch["features"].clone()}
        noisy["features"][batch["padding_mask"]] = 300.0
        again, _ = model(**noisy, prev_output_tokens=tokens)
    assert torch.equal(together, again)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("image_index", [None, [0, 0, 1], [0, 1, 1, 1, 1]], ids=str)
def test_where_nothing_is_padded_regions_have_no_mask(monkeypatch, sharing, image_index):
    """In encoder, refiner and decoder, in one pass and in a search; the results are the same."""
    masks = []  # of regions: their number is that of no text
    masked, fused = attention._masked, F.scaled_dot_product_attention
    monkeypatch.setattr(attention, "_masked", lambda scores, mask: masks.append(mask) or masked(scores, mask))

    def seen(*args, attn_mask=None, **options):
        masks.append(attn_mask)
        return fused(*args, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
    model, batch = build(sharing=sharing), images([11, 11])
    tokens = torch.tensor([[2, 5, 6], [2, 7, 8], [2, 9, 3], [2, 5, 5], [2, 6, 7]])[: len(image_index or range(4))]
    index = None if image_index is None else torch.tensor(image_index)
    generator = CaptionGenerator([model], model.decoder.dictionary, beam_size=2, max_len_b=4)
    logits, found, seen_masks = [], [], []
    for padded in (True, False):
        masks.clear()
        with torch.no_grad():
            logits.append(model(**batch, padded=padded, image_index=index, prev_output_tokens=tokens)[0])
            weights = model.decoder.image_weights(tokens[:2], model.encoder(**batch, padded=padded))
        found.append(generator.generate([], {"net_input": {**batch, "padded": padded}}))
        seen_masks.append([mask for mask in masks if mask is not None and mask.size(-1) == 11])
        logits.append(weights)
    assert len(seen_masks[0]) > 10 and not seen_masks[1]
    torch.testing.assert_close(logits[0], logits[2])
    torch.testing.assert_close(logits[1], logits[3])
    for one_image, other in zip(*found, strict=True):
        assert [each["tokens"].tolist() for each in one_image] == [each["tokens"].tolist() for each in other]
        torch.testing.assert_close([each["score"] for each in one_image], [each["score"] for each in other])
