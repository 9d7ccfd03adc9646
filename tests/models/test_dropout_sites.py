"""Every place that has a dropout rate drops out in training, and nothing does outside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.models.small import build, images
from tests.objectives.batches import SYMBOLS, sample_of
from xgpt_fairseq.kernels.dropout import Dropout
from xgpt_fairseq.models.attention import Attention
from xgpt_fairseq.models.regions import AoALayer
from xgpt_fairseq.models.xgpt import SHARING_LAYERS, XGPTModel
from xgpt_fairseq.objectives import ALL_OBJECTIVES


def sites(model: XGPTModel) -> Iterator[tuple[str, torch.nn.Module, str]]:
    """(name, module, attribute) of each rate; a layer that stands in encoder and decoder has one."""
    for name, module in model.named_modules():
        if isinstance(module, Dropout):
            yield name, module, "p"
        elif isinstance(module, Attention):
            yield name, module, "dropout"
        elif isinstance(module, AoALayer):
            yield f"{name}.attention", module, "attention_dropout"


def losses(model: XGPTModel) -> list[float]:
    """Of the objectives that together use every part."""
    found = []
    for name in ("imlm", "ida", "tifg", "matching"):
        objective = ALL_OBJECTIVES[name](SYMBOLS)
        sample, _ = sample_of(objective, images([4, 2, 3]))
        if name == "matching":
            sample["choices"] = torch.tensor([[0, 1], [1, 2], [2, 0]])
        torch.manual_seed(1)
        found.append(float(objective.loss(model, sample, label_smoothing=0.0).loss.detach()))
    return found


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_each_rate_acts_in_training_alone(sharing: str) -> None:
    model = build(heads=["tifg", "matching"], sharing=sharing, dropout=0.0, attention_dropout=0.0)
    exact = losses(model)
    found = list(sites(model))
    # embeddings of words and regions, two in the refiner, the matching head; two in each of two layers, and three in
    # each of the two that EncDec's decoder has of its own
    assert len(found) == 5 + 4 + (6 if sharing == "enc-dec" else 0)
    for name, module, rate in found:
        setattr(module, rate, 0.5)
        assert losses(model) == exact, f"{name}: outside training"
        model.train()
        assert losses(model) != pytest.approx(exact), name
        setattr(module, rate, 0.0)
        assert losses(model) == pytest.approx(exact), name
        model.eval()


def test_the_options_rates_reach_all_of_them() -> None:
    for _, module, rate in sites(
        build(heads=["tifg", "matching"], sharing="enc-dec", dropout=0.25, attention_dropout=0.125)
    ):
        assert getattr(module, rate) == (0.25 if rate == "p" else 0.125)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_decoding_drops_out_too_where_it_shares_the_encoder_s_layers(sharing: str, rate: str) -> None:
    batch, tokens = images([4, 2]), torch.tensor([[2, 5, 6], [2, 7, 8]])
    model = build(sharing=sharing, **{"dropout": 0.0, "attention_dropout": 0.0, rate: 0.5})
    encoded = model.encoder(**batch)
    exact, _ = model.decoder(tokens, encoder_out=encoded)
    model.train()
    if rate == "dropout":
        model.encoder.text.dropout.p = 0.0
    dropped, _ = model.decoder(tokens, encoder_out=encoded)
    assert not torch.allclose(exact, dropped)
