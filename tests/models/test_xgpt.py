"""The model against the plain reference, and what must hold in decoding and batching."""

from __future__ import annotations

import copy
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import reference

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.decoder import CACHE
from xgpt_fairseq.models.encoder import kept_images
from xgpt_fairseq.models.xgpt import ARCHITECTURES, STRUCTURES, XGPTConfig, XGPTModel, apply_architecture
from xgpt_fairseq.objectives import OBJECTIVES, ObjectiveOptions, Symbols

HEADS, LAYERS, HIDDEN, WIDTH = 4, 2, 16, 7
IC = OBJECTIVES["ic"](Symbols(pad=1, eos=2, mask=23, words=(4, 23)), ObjectiveOptions())


def dictionary_of(words: int) -> Dictionary:
    dictionary = Dictionary()
    for number in range(words):
        dictionary.add_symbol(f"w{number}")
    return dictionary


def build(seed: int = 0, words: int = 20, matching: bool = False, **options) -> XGPTModel:
    torch.manual_seed(seed)
    sizes = {"layers": LAYERS, "hidden_size": HIDDEN, "ffn_size": 32, "attention_heads": HEADS, "feature_dim": WIDTH}
    cfg = XGPTConfig(**{**sizes, "max_target_positions": 24, **options})
    task = SimpleNamespace(target_dictionary=dictionary_of(words), matching=matching)
    model = XGPTModel.build_model(cfg, task)
    with torch.no_grad():  # N(0, 0.02) and zero biases would hide mistakes
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def images(counts: list[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Random images with so many regions each, as the collater pads them."""
    rng = np.random.default_rng(seed)
    longest = max(counts)
    features = np.zeros((len(counts), longest, WIDTH), dtype=np.float16)
    boxes = np.zeros((len(counts), longest, 4), dtype=np.float32)
    mask = np.ones((len(counts), longest), dtype=bool)
    for i, count in enumerate(counts):
        features[i, :count] = rng.normal(size=(count, WIDTH))
        corners = np.sort(rng.random((count, 2, 2)), axis=1)
        boxes[i, :count] = corners.reshape(count, 4)
        mask[i, :count] = False
    return {
        "features": torch.from_numpy(features),
        "boxes": torch.from_numpy(boxes).to(dtype),
        "padding_mask": torch.from_numpy(mask),
    }


def teacher_forcing(captions: list[torch.Tensor], *, pad: int, eos: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded targets, and the same shifted right behind the end of sentence."""
    target = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True, padding_value=pad)
    shifted = [torch.cat([torch.tensor([eos]), tokens[:-1]]) for tokens in captions]
    return target, torch.nn.utils.rnn.pad_sequence(shifted, batch_first=True, padding_value=pad)


def one(batch: dict[str, torch.Tensor], image: int) -> dict[str, torch.Tensor]:
    """Image *image* of a batch alone and without padding."""
    count = int((~batch["padding_mask"][image]).sum())
    return {name: tensor[image : image + 1, :count] for name, tensor in batch.items()}


VARIANTS = [
    {},
    {"normalize_before": True},
    {"refine_layers": 0},
    {"refine_layers": 3},
    {"no_segment_embedding": True},
    {"sharing": "enc-dec"},
    {"sharing": "enc-dec", "normalize_before": True},
    {"sharing": "enc"},
    {"sharing": "enc", "normalize_before": True},
]


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
    assert result.predictions == 12 and int(result.correct) == right


def test_refiner_equals_appendix_a1():
    model = build(refine_layers=2).double()
    batch = images([4], dtype=torch.float64)
    mask = ~batch["padding_mask"][:, None, None, :]
    ours = model.encoder.regions(batch["features"], batch["boxes"], mask)[0].detach().numpy()
    p = reference.parameters_of(model)
    expected = reference.regions(p, batch["features"][0].double().numpy(), batch["boxes"][0].numpy(), HEADS)
    np.testing.assert_allclose(ours, expected, atol=1e-10)


def test_normalized_regions_have_length_one():
    model = build(normalize_regions=True).double()
    batch = images([4], dtype=torch.float64)
    p = reference.parameters_of(model)
    features = batch["features"][0].double().numpy()
    scaled = np.array([row / np.sqrt((row**2).sum()) for row in features])
    mask = ~batch["padding_mask"][:, None, None, :]
    ours = model.encoder.regions(batch["features"], batch["boxes"], mask)[0].detach().numpy()
    expected = reference.regions(p, scaled, batch["boxes"][0].numpy(), HEADS)
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # the length is taken in float32


def step_by_step(model, batch, rows_per_image: int, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (rows, T, V) from incremental decoding of *tokens* (rows, T), without reordering."""
    encoder_out = model.encoder(**batch)
    order = torch.arange(batch["features"].size(0)).repeat_interleave(rows_per_image)
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
    state: dict = {}
    steps = [model.decoder(tokens[:, : t + 1], encoder_out, state)[0] for t in range(tokens.size(1))]
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("sharing", STRUCTURES)
@pytest.mark.parametrize("rows_per_image", [1, 3])
def test_incremental_decoding_equals_full_decoding_for_1_to_100_regions(rows_per_image, sharing):
    model = build(sharing=sharing)
    counts = [1, 100, 2, 37, 10]
    batch = images(counts)
    tokens = torch.randint(4, 24, (len(counts) * rows_per_image, 9))
    tokens[:, 0] = 2
    with torch.no_grad():
        steps = step_by_step(model, batch, rows_per_image, tokens)
        full, _ = model(**batch, prev_output_tokens=tokens)
    torch.testing.assert_close(steps, full, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sharing", STRUCTURES)
def test_incremental_decoding_equals_full_decoding_under_beam_reorder(sharing):
    """A search that swaps, doubles and drops beams, and ends images early."""
    model = build(sharing=sharing)
    batch = images([4, 1, 9])
    beam, generator = 2, torch.Generator().manual_seed(3)
    with torch.no_grad():
        encoder_out = model.encoder(**batch)
        encoder_out = model.encoder.reorder_encoder_out(encoder_out, torch.arange(3).repeat_interleave(beam))
        alive = [0, 1, 2]
        tokens = torch.full((6, 1), 2)
        state: dict = {}
        for step in range(8):
            logits, _ = model.decoder(tokens, encoder_out, state)
            for position, image in enumerate(alive):
                rows = tokens[position * beam : (position + 1) * beam]
                alone = {name: tensor.repeat_interleave(beam, 0) for name, tensor in one(batch, image).items()}
                expected, _ = model(**alone, prev_output_tokens=rows)
                ours = logits[position * beam : (position + 1) * beam, -1]
                torch.testing.assert_close(ours, expected[:, -1], atol=1e-4, rtol=1e-4)
            keep = list(range(len(alive)))
            if step in (2, 5):
                keep.remove(step % len(alive))  # this image's search has ended
            order = torch.cat([k * beam + torch.randint(beam, (beam,), generator=generator) for k in keep])
            alive = [alive[k] for k in keep]
            tokens = torch.cat([tokens[order], torch.randint(4, 24, (len(order), 1), generator=generator)], dim=1)
            model.decoder.reorder_incremental_state(state, order)
            encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
    assert len(alive) == 1


@pytest.mark.parametrize("sharing", STRUCTURES)
def test_a_reordering_across_images_is_refused(sharing):
    model = build(sharing=sharing)
    encoder_out = model.encoder(**images([2, 3]))
    with pytest.raises(ValueError, match="rows of an image adjacent"):
        model.encoder.reorder_encoder_out(encoder_out, torch.tensor([0, 1, 0, 1]))


@given(images=st.integers(1, 5), beam=st.integers(1, 4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_kept_images_follows_any_search(images, beam, data):
    assert kept_images(torch.arange(images).repeat_interleave(beam), rows=images, images=images) is None
    keep = data.draw(st.lists(st.sampled_from(range(images)), min_size=1, unique=True).map(sorted))
    order = [k * beam + data.draw(st.integers(0, beam - 1)) for k in keep for _ in range(beam)]
    kept = kept_images(torch.tensor(order), rows=images * beam, images=images)
    assert (list(range(images)) if kept is None else kept.tolist()) == keep


@pytest.mark.parametrize("sharing", ["enc-dec-share", "enc-dec"])
def test_cross_attention_keys_are_kept_once_an_image(sharing):
    model = build(sharing=sharing)
    encoder_out = model.encoder(**images([4, 6]))
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, torch.arange(2).repeat_interleave(5))
    state: dict = {}
    model.decoder(torch.full((10, 1), 2), encoder_out, state)
    assert encoder_out["images"].states.size(0) == 2
    kept = state[CACHE].of_images
    assert [tuple(k.shape) for k, _ in kept.values()] == [(2, HEADS, 6, HIDDEN // HEADS)] * LAYERS


def test_enc_keeps_an_image_s_keys_once():
    model = build(sharing="enc")
    encoder_out = model.encoder(**images([4, 6]))
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, torch.arange(2).repeat_interleave(5))
    state: dict = {}
    model.decoder(torch.full((10, 1), 2), encoder_out, state)
    assert [tuple(k.shape) for k, _ in encoder_out["images"].keys_values] == [(2, HEADS, 6, HIDDEN // HEADS)] * LAYERS
    assert not state[CACHE].of_images


def test_enc_s_regions_never_see_the_text():
    """What the text attends to of an image does not depend on any parameter or token of the text."""
    model = build(sharing="enc")
    encoder_out = model.encoder(**images([4, 6]))
    model.decoder(torch.tensor([[2, 5, 6], [2, 7, 8]]), encoder_out)
    sums = [encoder_out["images"].states.sum(), *(k.sum() + v.sum() for k, v in encoder_out["images"].keys_values)]
    found = torch.autograd.grad(sum(sums), list(model.encoder.text.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)


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


@pytest.mark.parametrize("sharing", STRUCTURES)
def test_regions_are_a_set(sharing):
    model = build(sharing=sharing)
    batch = images([6])
    order = torch.randperm(6)
    tokens = torch.tensor([[2, 5, 6]])
    shuffled = {name: tensor[:, order] for name, tensor in batch.items()}
    with torch.no_grad():
        logits, _ = model(**batch, prev_output_tokens=tokens)
        again, _ = model(**shuffled, prev_output_tokens=tokens)
    torch.testing.assert_close(logits, again, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sharing", STRUCTURES)
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


@pytest.mark.parametrize("sharing", STRUCTURES)
@pytest.mark.parametrize("image_index", [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]], ids=str)
def test_captions_of_an_image_share_its_encoding(image_index, sharing):
    """Loss and gradient equal those of the same pairs taken one by one, whether the groups are equal or not."""
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


@pytest.mark.parametrize("sharing", STRUCTURES)
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_batch_order_and_company_never_change_a_caption(beam, sharing):
    model = build(sharing=sharing)
    counts = [4, 1, 100, 9, 30, 2]
    batch = images(counts)
    generator = SequenceGenerator([model], model.decoder.dictionary, beam_size=beam)

    def captions(net_input):
        found = generator.generate([], {"net_input": net_input})
        return [[hypothesis["tokens"].tolist() for hypothesis in hypotheses] for hypotheses in found]

    together = captions(batch)
    assert captions({name: tensor.flip(0) for name, tensor in batch.items()}) == together[::-1]
    assert [captions(one(batch, i))[0] for i in range(len(counts))] == together


@pytest.mark.parametrize("sharing", STRUCTURES)
@pytest.mark.parametrize("beam", [1, 3])
def test_beam_search_equals_a_plain_one(beam, sharing):
    """fairseq's search over the cached decoder finds what a search over full forward passes finds."""
    model = build(words=6, sharing=sharing)
    batch = images([3])
    dictionary = model.decoder.dictionary
    found = SequenceGenerator([model], dictionary, beam_size=beam, max_len_b=5).generate([], {"net_input": batch})
    hypotheses, finished = [(0.0, [2])], []
    for step in range(6):
        candidates = []
        for score, tokens in hypotheses:
            with torch.no_grad():
                logits, _ = model(**batch, prev_output_tokens=torch.tensor([tokens]))
            log_probabilities = torch.log_softmax(logits[0, -1], dim=-1)
            for word in range(len(dictionary)):
                ends_too_early = step < 1 and word == 2
                must_end = step == 5 and word != 2
                if word != 1 and not ends_too_early and not must_end:
                    candidates.append((score + float(log_probabilities[word]), [*tokens, word]))
        candidates.sort(key=lambda candidate: -candidate[0])
        finished += [(s / step_length(t), t) for s, t in candidates[:beam] if t[-1] == 2]
        hypotheses = [c for c in candidates[: 2 * beam] if c[1][-1] != 2][:beam]
        if len(finished) >= beam:
            break
    best = max(finished[:beam], key=lambda hypothesis: hypothesis[0])
    assert found[0][0]["tokens"].tolist() == best[1][1:]
    assert float(found[0][0]["score"]) == pytest.approx(best[0], abs=1e-4)


def step_length(tokens: list[int]) -> int:
    return len(tokens) - 1


@pytest.mark.parametrize("sharing", STRUCTURES)
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
            values = parameter[2:] if "tokens" in name else parameter  # row 1 is padding: zero
            assert float(values.detach().std()) == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize("sharing", STRUCTURES)
def test_every_parameter_learns_from_captions(sharing):
    model = build(sharing=sharing)
    batch = images([3, 4])
    tokens = torch.tensor([[2, 5, 6], [2, 7, 8]])
    logits, _ = model(**batch, prev_output_tokens=tokens)
    logits.logsumexp(-1).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    others = ("encoder.alignment.", "decoder.region_")  # IDA's and TIFG's
    assert {name for name in without if not name.startswith(others)} == set()


@pytest.mark.parametrize("sharing", STRUCTURES)
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
    assert ARCHITECTURES["xgpt_tiny"]["layers"] == 6
    defaults = XGPTConfig()
    assert (defaults.dropout, defaults.max_target_positions, defaults.refine_layers) == (0.1, 60, 1)


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


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="--hidden-size 16 is not a multiple of --attention-heads 3"):
        build(attention_heads=3)
