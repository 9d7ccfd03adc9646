"""Each objective against a plain computation, what it trains, and what it must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import reference
from tests.models.small import HEADS, HIDDEN, LAYERS, WIDTH, build, images, one
from tests.objectives.batches import CAPTIONS, SYMBOLS, objective_of, sample_of
from xgpt_fairseq.models.xgpt import SHARING_LAYERS
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES


def regions_of(p: reference.Parameters, batch: dict[str, torch.Tensor], image: int) -> np.ndarray:
    alone = one(batch, image)
    return reference.regions(p, alone["features"][0].double().numpy(), alone["boxes"][0].numpy(), HEADS)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("image_index", [None, [0, 0, 1], [1, 0, 1]], ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [("ic", {}), ("imlm", {}), ("ida", {}), ("ida", {"placeholder": "multi"}), ("ida", {"keep_regions": True})],
    ids=str,
)
def test_word_objectives_equal_a_plain_computation(name, options, image_index, sharing):
    objective, model = objective_of(name, **options), build(sharing=sharing).double()
    batch = images([4, 2, 3] if image_index is None else [4, 2], dtype=torch.float64)
    index = None if image_index is None else torch.tensor(image_index)
    sample, examples = sample_of(objective, batch, image_index=index)
    result = objective.loss(model, sample, label_smoothing=0.0)
    p = reference.parameters_of(model)
    expected = 0.0
    for i, example in enumerate(examples):
        v = regions_of(p, batch, i if image_index is None else image_index[i])
        if name == "ic":
            x = v + reference.segment(p, 1)
        elif name == "imlm":
            text = reference.embed_text(p, example["src_tokens"].tolist())
            x = np.concatenate([v + reference.segment(p, 1), text])
        else:
            x = reference.align(p, reference.embed_text(p, example["src_tokens"].tolist()), v)
            if options.get("keep_regions"):
                x = np.concatenate([v + reference.segment(p, 1), x])
        positions = example["positions"].tolist() if "positions" in example else None
        tokens = example["prev_output_tokens"].tolist()
        logits = reference.decode(p, tokens, x, HEADS, LAYERS, positions=positions, sharing=sharing)
        expected += reference.caption_loss(logits, example["target"].tolist())
    assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert result.num_targets == sum(len(example["target"]) for example in examples)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("name", ["mlm", "mass"])
def test_text_objectives_equal_a_plain_computation(name, sharing):
    """On a model without image parts, as text pre-training builds it."""
    objective, model = objective_of(name), build(feature_dim=None, sharing=sharing).double()
    sample, examples = sample_of(objective, {})
    result = objective.loss(model, sample, label_smoothing=0.0)
    p = reference.parameters_of(model)
    expected, predictions = 0.0, 0
    for example in examples:
        source, target = example["src_tokens"].tolist(), example["target"].tolist()
        text = reference.embed_text(p, source)
        if name == "mlm":
            states = reference.encode_row(p, text, HEADS, LAYERS)
            masked = [i for i, token in enumerate(target) if token != SYMBOLS.pad]
            logits = states[masked] @ p["encoder.text.tokens.weight"].T + p["decoder.output.bias"]
            target = [target[i] for i in masked]
        else:
            tokens, positions = example["prev_output_tokens"].tolist(), example["positions"].tolist()
            logits = reference.decode(p, tokens, text, HEADS, LAYERS, positions=positions, sharing=sharing)
        expected += reference.caption_loss(logits, target)
        predictions += len(target)
    assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert result.num_targets == predictions


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("target", ["embedding", "feature"])
@pytest.mark.parametrize(("limit", "reduction"), [(100, "mean"), (2, "mean"), (100, "sum")])
@pytest.mark.parametrize("image_index", [None, [0, 0, 1]], ids=str)
def test_tifg_equals_a_plain_computation(image_index, target, limit, reduction, sharing):
    """Equation 5 as it is printed is "sum"; the mean divides by the width of what is predicted."""
    objective = objective_of("tifg", regions=limit, reduction=reduction)
    model = build(objective_options={"tifg_target": target}, sharing=sharing).double()
    batch = images([4, 2, 3] if image_index is None else [4, 2], dtype=torch.float64)
    index = None if image_index is None else torch.tensor(image_index)
    sample, examples = sample_of(objective, batch, image_index=index)
    result = objective.loss(model, sample, label_smoothing=0.0)
    p = reference.parameters_of(model)
    expected = 0.0
    for i, example in enumerate(examples):
        alone = one(batch, i if image_index is None else image_index[i])
        features, boxes = alone["features"][0].double().numpy(), alone["boxes"][0].numpy()
        rows = [[*f, *b, (b[2] - b[0]) * (b[3] - b[1])] for f, b in zip(features, boxes, strict=True)]
        name = "encoder.regions.embedding"
        embedded = reference.layer_norm(p, f"{name}.norm", reference.linear(p, f"{name}.project", np.array(rows)))
        truth = features if target == "feature" else reference.refine(p, embedded, HEADS)
        text = reference.embed_text(p, example["src_tokens"].tolist())
        fed = np.concatenate([p["heads.tifg.start"][None], embedded[: min(limit, len(embedded)) - 1]])
        decoded = reference.decode_row(p, fed + reference.segment(p, 1), text, HEADS, LAYERS, sharing=sharing)
        predicted = reference.linear(p, "heads.tifg.output", decoded)
        errors = [((x - y) ** 2).sum() for x, y in zip(truth, predicted, strict=False)]
        expected += sum(errors) / len(errors)
    width = WIDTH if target == "feature" else HIDDEN
    assert float(result.unsmoothed) == pytest.approx(expected / width, rel=1e-6)
    assert float(result.loss.detach()) == pytest.approx(expected / (width if reduction == "mean" else 1), rel=1e-6)
    assert result.num_targets == 3 and result.correct is None


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_tifg_predicts_regions_from_earlier_ones_and_the_text_only(sharing):
    """Changing region i, in feature or box, changes no prediction at or before i, and those after it."""
    objective, model = objective_of("tifg"), build(sharing=sharing)
    batch = images([6])
    sample, _ = sample_of(objective, batch, captions=CAPTIONS[:1])
    with torch.no_grad():
        before, _, _ = model("tifg", limit=100, **sample["net_input"])
        for i in range(6):
            changed = {name: tensor.clone() for name, tensor in batch.items()}
            changed["features"][0, i] += 1
            changed["boxes"][0, i] *= 0.5
            after, _, _ = model("tifg", limit=100, **{**sample["net_input"], **changed})
            assert torch.equal(before[:, : i + 1], after[:, : i + 1])
            assert i == 5 or not torch.equal(before[:, i + 1], after[:, i + 1])
        other, _ = sample_of(objective, batch, captions=CAPTIONS[1:2])
        changed_text, _, _ = model("tifg", limit=100, **other["net_input"])
        assert not torch.equal(before[:, 0], changed_text[:, 0])


@pytest.mark.parametrize("refine_layers", [0, 6])
@pytest.mark.parametrize("target", ["embedding", "feature"])
def test_tifg_s_target_gets_no_gradient(target, refine_layers):
    """Also without refiner, where the target is what the decoder is fed, which does get a gradient."""
    model = build(refine_layers=refine_layers, objective_options={"tifg_target": target})
    sample, _ = sample_of(objective_of("tifg"), images([4, 2, 3]))
    _, target, _ = model("tifg", limit=100, **sample["net_input"])
    assert not target.requires_grad


# parameter → the objectives that reach it
REGIONS, REFINER, TEXT = {"ic", "imlm", "ida"}, {"ic", "imlm", "ida"}, set(PRETRAINING_OBJECTIVES)
REACHED = {
    "encoder.text.": TEXT,
    "encoder.segments.": TEXT,
    "encoder.layers.": TEXT,
    "encoder.regions.embedding.": REGIONS | {"tifg"},  # TIFG feeds regions to its decoder
    "encoder.regions.refiner.": REFINER,  # and has them, refined, as its target, without gradient
    "encoder.alignment.": {"ida"},
    "decoder.layers.": set(PRETRAINING_OBJECTIVES) - {"mlm"},  # of enc-dec
    "decoder.output.": set(PRETRAINING_OBJECTIVES) - {"tifg"},
    "heads.tifg.start": {"tifg"},
    "heads.tifg.output.": {"tifg"},
}


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_each_objective_reaches_exactly_its_parameters(name, sharing):
    model, objective = build(sharing=sharing), objective_of(name)
    sample, _ = sample_of(objective, images([4, 2, 3]))
    objective.loss(model, sample, label_smoothing=0.0).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        (objectives,) = (reached for beginning, reached in REACHED.items() if parameter_name.startswith(beginning))
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (name in objectives), parameter_name


def test_ida_s_words_reach_the_decoder_through_the_regions_alone():
    """With --ida-keep-regions off, the encoder input is the aligned words: its states are one a word."""
    model = build()
    sample, _ = sample_of(objective_of("ida"), images([4, 2, 3]))
    sizes = {}
    for mode in ("joint", "aligned", "aligned+regions"):
        inputs = {k: v for k, v in sample["net_input"].items() if k != "prev_output_tokens"}
        sizes[mode] = model.encoder(**inputs, text_mode=mode)["memory"].states.size(1)
    words = sample["net_input"]["src_tokens"].size(1)
    assert sizes == {"joint": 4 + words, "aligned": words, "aligned+regions": 4 + words}


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_padding_and_company_never_change_a_loss(name, sharing):
    objective, model = objective_of(name), build(sharing=sharing).double()
    batch = images([4, 9, 1], dtype=torch.float64)
    sample, _ = sample_of(objective, batch)
    together = float(objective.loss(model, sample, label_smoothing=0.0).loss.detach())
    apart = 0.0
    for i, caption in enumerate(CAPTIONS):
        rng = np.random.default_rng([0, i])
        example = objective.make_example(np.array(caption), rng)
        target = example.pop("target", None)
        arrays = {key: torch.from_numpy(value)[None] for key, value in example.items()}
        alone = {
            "net_input": {**(one(batch, i) if objective.uses_regions else {}), **arrays},
            "target": None if target is None else torch.from_numpy(target)[None],
            "target_index": None if target is None else torch.from_numpy(np.flatnonzero(target != SYMBOLS.pad)),
            "nsentences": 1,
        }
        apart += float(objective.loss(model, alone, label_smoothing=0.0).loss.detach())
    assert together == pytest.approx(apart, rel=1e-6)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_half_precision_stays_near_float32(name, dtype, sharing):
    objective = objective_of(name)
    sample, _ = sample_of(objective, images([4, 2, 3]))
    exact = objective.loss(build(sharing=sharing), sample, label_smoothing=0.0).loss
    half = build(sharing=sharing).to(dtype)
    loss = objective.loss(half, sample, label_smoothing=0.0).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    assert all(torch.isfinite(p.grad).all() for p in half.parameters() if p.grad is not None)


def test_mlm_predicts_the_masked_words_at_their_places():
    objective = objective_of("mlm")
    tokens = np.arange(4, 22)
    masked = 0
    for seed in range(200):
        example = objective.make_example(tokens, np.random.default_rng(seed))
        assert set(example) == {"src_tokens", "target"} and len(example["target"]) == len(example["src_tokens"]) == 19
        source, target = example["src_tokens"], example["target"]
        predicted = np.flatnonzero(target != SYMBOLS.pad)
        assert len(predicted) == 3  # 15 % of 18
        assert (target[predicted] == tokens[predicted]).all()
        assert source[-1] == SYMBOLS.eos and target[-1] == SYMBOLS.pad
        others = np.setdiff1d(np.arange(18), predicted)
        assert (source[others] == tokens[others]).all()
        masked += int((source[predicted] == SYMBOLS.mask).sum())
    assert 0.75 < masked / 600 < 0.85


@pytest.mark.parametrize("name", ["imlm", "mass"])
def test_a_fragment_is_predicted_from_the_words_before_at_their_own_positions(name):
    objective = objective_of(name)
    tokens = np.arange(4, 14)
    for seed in range(50):
        example = objective.make_example(tokens, np.random.default_rng(seed))
        positions = example["positions"]
        assert len(positions) == 5 and (np.diff(positions) == 1).all()
        assert (example["target"] == tokens[positions]).all()
        before = [2 if i == 0 else tokens[i - 1] for i in positions]
        assert example["prev_output_tokens"].tolist() == before
        outside = np.setdiff1d(np.arange(10), positions)
        assert (example["src_tokens"][outside] == tokens[outside]).all()
        assert example["src_tokens"][-1] == 2 and len(example["src_tokens"]) == 11


@pytest.mark.parametrize(("options", "masks"), [({}, None), ({"spans": "one"}, 1), ({"placeholder": "multi"}, 3)])
def test_ida_predicts_the_whole_sentence_from_its_remains(options, masks):
    objective = objective_of("ida", **options)
    tokens = np.arange(4, 14)
    for seed in range(50):
        example = objective.make_example(tokens, np.random.default_rng(seed))
        assert example["target"].tolist() == [*tokens, 2]
        assert example["prev_output_tokens"].tolist() == [2, *tokens]
        source = example["src_tokens"].tolist()
        assert source[-1] == 2
        kept = [token for token in source[:-1] if token != SYMBOLS.mask]
        assert len(kept) == 7 and kept == sorted(kept) and set(kept) <= set(tokens.tolist())
        assert masks is None or source.count(SYMBOLS.mask) == masks


# Losses of a seeded model on seeded batches: a refactoring leaves them alone.
GOLDEN = {
    "ic": 70.376877,
    "imlm": 27.867960,
    "ida": 70.434326,
    "tifg": 204.080200 / HIDDEN,
    "mlm": 11.151291,
    "mass": 28.117573,
}


@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_golden_losses(name):
    objective, model = objective_of(name), build().double()
    sample, _ = sample_of(objective, images([4, 2, 3], dtype=torch.float64), seed=1)
    loss = float(objective.loss(model, sample, label_smoothing=0.1).loss.detach())
    assert loss == pytest.approx(GOLDEN[name], rel=1e-6)


def test_feature_targets_have_the_features_width():
    model = build(objective_options={"tifg_target": "feature"})
    assert model.heads["tifg"].output.out_features == WIDTH


def test_tifg_s_start_begins_as_an_embedding_does():
    torch.manual_seed(0)
    start = objective_of("tifg", target="feature").build_head(hidden_size=5000, feature_dim=1, dropout=0.0).start
    assert float(start.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert abs(float(start.detach().mean())) < 0.002
