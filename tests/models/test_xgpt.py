"""The model against the plain reference: forward pass, loss and gradient, sizes, and checkpoints that do not fit."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator

from tests.models import reference
from tests.models.small import (
    HEADS,
    HIDDEN,
    IC,
    LAYERS,
    VARIANTS,
    WIDTH,
    build,
    dictionary_of,
    images,
    one,
    teacher_forcing,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import ARCHITECTURES, SHARING_LAYERS, XGPTConfig, XGPTModel, apply_architecture


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_forward_and_loss_equal_the_plain_reference(options, label_smoothing):
    model = build(**options).double()
    batch = images([3, 1, 5], dtype=torch.float64)
    captions = [torch.tensor(tokens) for tokens in ([5, 6, 7, 2], [8, 2], [9, 5, 5, 11, 23, 2])]
    target, previous = teacher_forcing(captions, pad=1, eos=2)
    logits, _ = model(**batch, prev_output_tokens=previous)
    sample = {
        "net_input": {**batch, "prev_output_tokens": previous},
        "target": target,
        "target_index": (target.view(-1) != 1).nonzero().squeeze(1),
    }
    result = IC.loss(model, sample, label_smoothing=label_smoothing)

    p = reference.parameters_of(model)
    pre_norm = options.get("normalize_before", False)
    expected_loss, right = 0.0, 0
    for i, caption in enumerate(captions):
        alone = one(batch, i)
        source = reference.image_row(p, alone["features"][0].double().numpy(), alone["boxes"][0].numpy(), HEADS)
        tokens = [2, *caption.tolist()[:-1]]
        sharing = options.get("sharing", "enc-dec-share")
        expected = reference.decode(p, tokens, source, HEADS, LAYERS, pre_norm, sharing=sharing)
        np.testing.assert_allclose(logits[i, : len(caption)].detach().numpy(), expected, atol=1e-9)
        expected_loss += reference.caption_loss(expected, caption.tolist(), label_smoothing)
        right += sum(int(np.argmax(row)) == word for row, word in zip(expected, caption.tolist(), strict=True))
    # the loss is taken in float32, as under half precision
    assert float(result.loss.detach()) == pytest.approx(expected_loss, rel=1e-6)
    assert result.num_targets == 12 and int(result.correct) == right


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("image_index", [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 1]], ids=str)
@pytest.mark.parametrize("most_places", [2, 1], ids=["in groups", "copied unless equal"])
def test_captions_of_an_image_share_its_encoding(most_places, image_index, sharing, monkeypatch):
    """Loss and gradient equal those of the same pairs taken one by one, whether the groups are equal or not."""
    monkeypatch.setattr("xgpt_fairseq.kernels.grouping.MOST_PLACES", most_places)
    model = build(sharing=sharing).double()
    batch = images([5, 3], dtype=torch.float64)
    captions = [torch.tensor(tokens) for tokens in ([5, 6, 2], [7, 2], [8, 9, 10, 2], [11, 2])]
    equal = image_index == [0, 0, 1, 1]

    def loss(net_input, texts):
        target, previous = teacher_forcing(texts, pad=1, eos=2)
        index = (target.view(-1) != 1).nonzero().squeeze(1)
        sample = {
            "net_input": {**net_input, "prev_output_tokens": previous},
            "target": target,
            "target_index": index,
        }
        return IC.loss(model, sample, label_smoothing=0.0).loss

    def gradients():
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    together = loss({**batch, "image_index": None if equal else torch.tensor(image_index)}, captions)
    together.backward()
    ours = gradients()
    apart = sum(loss(one(batch, image), [caption]) for image, caption in zip(image_index, captions, strict=True))
    apart.backward()
    assert float(together.detach()) == pytest.approx(float(apart.detach()), rel=1e-6)
    for name, gradient in gradients().items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(dtype, sharing):
    model = build(sharing=sharing)
    batch = images([3, 7])
    captions = [torch.tensor(tokens) for tokens in ([5, 6, 2], [7, 8, 9, 2])]
    target, previous = teacher_forcing(captions, pad=1, eos=2)
    sample = {
        "net_input": {**batch, "prev_output_tokens": previous},
        "target": target,
        "target_index": (target.view(-1) != 1).nonzero().squeeze(1),
    }
    exact = IC.loss(model, sample, label_smoothing=0.0).loss
    half = build(sharing=sharing).to(dtype)
    loss = IC.loss(half, sample, label_smoothing=0.0).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.03)
    assert all(torch.isfinite(p.grad).all() for p in half.parameters() if p.grad is not None)


def test_initialisation_is_bert_s():
    cfg = XGPTConfig(feature_dim=64, hidden_size=128, layers=2, ffn_size=512, attention_heads=4)
    model = XGPTModel.build_model(cfg, SimpleNamespace(target_dictionary=dictionary_of(300)))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.numel() > 5000:
            values = parameter[2:] if "tokens" in name else parameter  # row 1 is padding
            assert float(values.detach().std()) == pytest.approx(0.02, rel=0.1), name
            assert float(values.detach().mean()) == pytest.approx(0, abs=0.002), name
    assert (model.encoder.text.tokens.weight[1] == 0).all()


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_every_parameter_learns_from_captions(sharing):
    model = build(sharing=sharing)
    batch = images([3, 4])
    tokens = torch.tensor([[2, 5, 6], [2, 7, 8]])
    logits, _ = model(**batch, prev_output_tokens=tokens)
    logits.logsumexp(-1).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    others = ("encoder.alignment.", "heads.tifg.")  # IDA's and TIFG's
    assert {name for name in without if not name.startswith(others)} == set()


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_checkpointed_activations_change_nothing_but_memory(sharing):
    """Loss and gradient with dropout are the same bit by bit; fewer tensors wait for the backward pass."""
    batch, tokens = images([5, 3]), torch.tensor([[2, 5, 6], [2, 7, 8]])
    found = []
    for checkpointed in (False, True):
        model = build(sharing=sharing, checkpoint_activations=checkpointed).train()
        kept = []
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            loss = model(**batch, prev_output_tokens=tokens)[0].logsumexp(-1).sum()
        waiting = len(kept)
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss, gradients, waiting))
    (loss, gradients, waiting), (other_loss, other_gradients, fewer) = found
    assert torch.equal(loss, other_loss) and gradients.keys() == other_gradients.keys()
    assert all(torch.equal(gradient, other_gradients[name]) for name, gradient in gradients.items())
    assert fewer < waiting / 2


def test_dropout_is_off_in_evaluation_and_on_in_training():
    model = build()
    batch, tokens = images([5]), torch.tensor([[2, 5, 6]])
    assert torch.equal(model(**batch, prev_output_tokens=tokens)[0], model(**batch, prev_output_tokens=tokens)[0])
    model.train()
    assert not torch.equal(model(**batch, prev_output_tokens=tokens)[0], model(**batch, prev_output_tokens=tokens)[0])


def test_base_takes_a_step_and_a_beam_2_decode_on_100_regions_of_2048():
    cfg = XGPTConfig(feature_dim=2048)
    apply_architecture("xgpt_base", cfg)
    torch.manual_seed(0)
    model = XGPTModel.build_model(cfg, SimpleNamespace(target_dictionary=dictionary_of(1000)))
    rng = np.random.default_rng(0)
    batch = {
        "features": torch.from_numpy(rng.normal(size=(1, 100, 2048)).astype(np.float16)),
        "boxes": torch.tensor([[0.1, 0.2, 0.5, 0.9]]).expand(1, 100, 4),
        "padding_mask": torch.zeros(1, 100, dtype=torch.bool),
    }
    target, previous = teacher_forcing([torch.tensor([5, 6, 7, 2])], pad=1, eos=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        logits, _ = model.eval()(**batch, prev_output_tokens=previous)
        loss = torch.nn.functional.cross_entropy(logits[0], target[0])
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
    generator = SequenceGenerator([model], model.decoder.dictionary, beam_size=2, max_len_b=6)
    hypotheses = generator.generate([], {"net_input": batch})[0]
    assert len(hypotheses) == 2 and hypotheses[0]["tokens"][-1] == 2


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_architectures_fill_only_what_is_open(arch):
    cfg = Namespace(layers=3)
    apply_architecture(arch, cfg)
    assert cfg.layers == 3
    assert cfg.hidden_size == ARCHITECTURES[arch]["hidden_size"]


def test_paper_sizes():
    assert ARCHITECTURES["xgpt_base"] == {"layers": 12, "hidden_size": 768, "ffn_size": 3072, "attention_heads": 8}
    assert ARCHITECTURES["xgpt_tiny"] == {**ARCHITECTURES["xgpt_base"], "layers": 6}
    assert ARCHITECTURES["xgpt_demo"] == {"layers": 4, "hidden_size": 256, "ffn_size": 1024, "attention_heads": 4}


def test_defaults():
    defaults = {name: value for name, value in asdict(XGPTConfig()).items() if not name.startswith("_")}  # fairseq's
    assert {name: value for name, value in defaults.items() if value not in (None, False)} == {
        "refine_layers": 1, "sharing": "enc-dec-share", "max_target_positions": 60,
        "dropout": 0.1, "attention_dropout": 0.1,
    }  # fmt: skip
    assert {name for name, value in defaults.items() if value is None} == {
        "layers", "hidden_size", "ffn_size", "attention_heads", "feature_dim",
    }  # fmt: skip


def test_a_model_without_an_architecture_has_the_base_s_sizes(monkeypatch):
    """`--arch xgpt`, or a YAML file that names no sizes, or not all."""
    base = {"layers": 3, "hidden_size": 12, "ffn_size": 20, "attention_heads": 2}
    monkeypatch.setitem(ARCHITECTURES, "xgpt_base", base)
    for named in ({}, {"hidden_size": 8}, {"layers": 1, "ffn_size": 10}):
        cfg = XGPTConfig(feature_dim=WIDTH, **named)
        model = XGPTModel.build_model(cfg, SimpleNamespace(target_dictionary=dictionary_of(20)))
        expected = {**base, **named}
        layer = model.encoder.layers[0]
        assert len(model.encoder.layers) == expected["layers"]
        assert layer.fc1.weight.shape == (expected["ffn_size"], expected["hidden_size"])
        assert layer.attention.heads == expected["attention_heads"]
        assert {name: getattr(cfg, name) for name in base} == expected


@pytest.mark.parametrize("size", ["layers", "hidden_size", "ffn_size", "attention_heads", "refine_layers"])
def test_sizes_have_a_least_value(size):
    least = 0 if size == "refine_layers" else 1
    with pytest.raises(DataError, match=f"^--{size.replace('_', '-')} must be at least {least}, got {least - 1}$"):
        build(**{size: least - 1})
    build(**{"attention_heads": 1, size: least})


def test_a_checkpoint_of_another_dictionary_is_refused():
    model, other = build(), build()
    renamed = dictionary_of(20)
    renamed.symbols[7], renamed.symbols[8] = renamed.symbols[8], renamed.symbols[7]
    cfg = XGPTConfig(layers=2, hidden_size=HIDDEN, ffn_size=32, attention_heads=HEADS, feature_dim=WIDTH)
    other = XGPTModel.build_model(cfg, SimpleNamespace(target_dictionary=renamed))
    with pytest.raises(DataError, match=r"dict\.txt is not the dictionary of the checkpoint"):
        other.load_state_dict(model.state_dict())


def test_a_checkpoint_of_another_feature_width_is_refused():
    with pytest.raises(DataError, match="trained on region features of width 9, the region store has width 7"):
        build().load_state_dict(build(feature_dim=9).state_dict())


def test_a_store_of_another_feature_width_is_refused():
    task = SimpleNamespace(target_dictionary=dictionary_of(20), feature_dim=2048, store_name="coco.regions")
    cfg = XGPTConfig(layers=1, hidden_size=8, ffn_size=8, attention_heads=2, feature_dim=1280)
    with pytest.raises(DataError, match=r"coco\.regions has features of width 2048.*width 1280"):
        XGPTModel.build_model(cfg, task)


@pytest.mark.parametrize("option", ["dropout", "attention_dropout"])
def test_dropout_is_a_probability(option):
    for value in (1.5, -0.1):
        with pytest.raises(DataError, match=rf"--{option.replace('_', '-')} must be a probability, got {value}"):
            build(**{option: value})
    for value in (0, 1):
        build(**{option: value})
