"""What the encoder makes of padding, and how its states follow a search."""

from __future__ import annotations

import pytest
import torch

from tests.models.small import (
    VARIANTS,
    build,
    images,
    one,
)
from xgpt_fairseq.models.xgpt import SHARING_LAYERS


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
