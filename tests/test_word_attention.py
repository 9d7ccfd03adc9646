"""Where the model looks: against the formulas in float64, one image, layer, head and position at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import reference as plain
from tests.models.small import HEADS, HIDDEN, LAYERS, build, images, one
from tests.test_hub_interface import build as build_captioner
from tests.test_hub_interface import photos  # noqa: F401  (a fixture)
from xgpt_fairseq.data.caption_dataset import load_regions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.kernels import switch
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.word_attention import Heads, image_attention, word_attention

STRUCTURES = [
    {"sharing": sharing, "normalize_before": before}
    for sharing in ("enc-dec-share", "enc-dec", "enc")
    for before in (False, True)
]
CAPTIONS = [[5, 6, 7, 2], [9, 4, 11, 8, 5, 2], [10, 2]]  # with the end of sentence, 2


def head_weights(p: plain.Parameters, attention: str, x: np.ndarray, states: np.ndarray, seen: Any) -> np.ndarray:
    """softmax(q k^T / sqrt(d)) of each head, (heads, T, N), zero where query i does not see key j."""
    (wq, bq), (wk, bk), _ = plain.thirds(p, f"{attention}.qkv")
    q, k, width = x @ wq.T + bq, states @ wk.T + bk, HIDDEN // HEADS
    weights = np.zeros((HEADS, len(q), len(k)))
    for head in range(HEADS):
        columns = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            visible = [j for j in range(len(k)) if seen(i, j)]
            scores = [float(q[i, columns] @ k[j, columns]) / math.sqrt(width) for j in visible]
            weights[head, i, visible] = plain.softmax(scores)
    return weights


def layer_weights(p: plain.Parameters, tokens: list[int], source: np.ndarray, sharing: str, pre: bool) -> np.ndarray:
    """The attention to the image in each layer, (layers, heads, T, N), as section 4.2 and 6 have it."""
    x, regions = plain.embed_text(p, tokens), len(source)
    if sharing == "enc":
        both, found = np.concatenate([source, x]), []
        for number in range(LAYERS):
            name = f"encoder.layers.{number}"
            y = plain.layer_norm(p, f"{name}.attention_norm", both) if pre else both
            weights = head_weights(p, f"{name}.attention", y, y, lambda i, j: j < max(regions, i + 1))
            found.append(weights[:, regions:, :regions])
            both = plain.sublayer(
                p, f"{name}.attention_norm", both,
                lambda y, n=name: plain.attend(p, f"{n}.attention", y, y, HEADS, after=regions), pre,
            )  # fmt: skip
            both = plain.sublayer(p, f"{name}.ffn_norm", both, lambda y, n=name: plain.feed_forward(p, n, y), pre)
        return np.array(found)
    states = plain.encode_row(p, source, HEADS, LAYERS, pre)
    stack, cross = ("decoder", "cross_") if sharing == "enc-dec" else ("encoder", "")
    found = []
    for number in range(LAYERS):
        name = f"{stack}.layers.{number}"
        norm = f"{name}.{cross or 'attention_'}norm"
        x = plain.sublayer(
            p, f"{name}.attention_norm", x,
            lambda y, n=name: plain.attend(p, f"{n}.attention", y, y, HEADS, causal=True), pre,
        )  # fmt: skip
        y = plain.layer_norm(p, norm, x) if pre else x
        found.append(head_weights(p, f"{name}.{cross}attention", y, states, lambda i, j: True))
        x = plain.sublayer(
            p, norm, x, lambda y, n=name: plain.attend(p, f"{n}.{cross}attention", y, states, HEADS), pre
        )
        x = plain.sublayer(p, f"{name}.ffn_norm", x, lambda y, n=name: plain.feed_forward(p, n, y), pre)
    return np.array(found)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("heads", [Heads(), Heads([2], [1, 3])], ids=["mean", "chosen"])
def test_the_weights_are_the_models(structure: dict[str, Any], heads: Heads) -> None:
    model, batch = build(**structure), images([3, 6, 1])
    parameters = plain.parameters_of(model)
    captions = [torch.tensor(tokens) for tokens in CAPTIONS]
    found = image_attention(model, batch, captions, heads)
    for number, (weights, tokens) in enumerate(zip(found, CAPTIONS, strict=True)):
        alone = one(batch, number)
        features, boxes = (alone[name][0].double().numpy() for name in ("features", "boxes"))
        source = plain.image_row(parameters, features, boxes, HEADS)
        pre = structure["normalize_before"]
        expected = layer_weights(parameters, [2, *tokens[:-1]], source, structure["sharing"], pre)
        if heads.layers is not None and heads.heads is not None:
            expected = expected[np.array(heads.layers) - 1][:, np.array(heads.heads) - 1]
        mean = expected.mean(axis=(0, 1))
        if structure["sharing"] == "enc":
            assert (mean.sum(axis=-1) < 0.999).all()  # the text has the rest
            mean = mean / mean.sum(axis=-1, keepdims=True)
        assert weights.shape == (len(tokens), features.shape[0])
        np.testing.assert_allclose(weights, mean, rtol=2e-4, atol=2e-6)
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("sharing", ["enc-dec-share", "enc-dec", "enc"])
def test_plain_kernels_give_the_same(sharing: str) -> None:
    batch, captions = images([3, 6, 1]), [torch.tensor(tokens) for tokens in CAPTIONS]
    fast = image_attention(build(sharing=sharing), batch, captions)
    with switch.plain():
        slow = image_attention(build(sharing=sharing), batch, captions)
    for ours, theirs in zip(fast, slow, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sharing", ["enc-dec-share", "enc-dec", "enc"])
def test_several_captions_of_an_image(sharing: str) -> None:
    """In groups of equal size, and with an index; each as if it were alone."""
    model, batch = build(sharing=sharing), images([3, 5])
    tokens = torch.tensor([[2, 5, 6], [2, 9, 4], [2, 7, 7], [2, 8, 10]])
    with torch.inference_mode():
        grouped = model.decoder.image_weights(tokens, model.encoder(**batch))
        mixed = model.decoder.image_weights(tokens, model.encoder(**batch, image_index=torch.tensor([1, 0, 0, 1])))
        for row, (image, other) in enumerate(zip([0, 0, 1, 1], [1, 0, 0, 1], strict=True)):
            for of_all, which in ((grouped, image), (mixed, other)):
                alone = one(batch, which)
                [expected] = model.decoder.image_weights(tokens[row : row + 1], model.encoder(**alone)).unbind(1)
                count = alone["features"].size(1)
                torch.testing.assert_close(of_all[:, row, ..., :count], expected, rtol=1e-4, atol=1e-6)
                assert not of_all[:, row, ..., count:].any()  # padding


def test_layers_and_heads_that_are_not_there() -> None:
    captions = [torch.tensor(tokens) for tokens in CAPTIONS]
    with pytest.raises(DataError, match="attention of layer 3: the model's are 1 to 2"):
        image_attention(build(), images([3, 6, 1]), captions, Heads(layers=[1, 3]))
    with pytest.raises(DataError, match="attention of head 0: the model's are 1 to 4"):
        image_attention(build(), images([3, 6, 1]), captions, Heads(heads=[0]))


@pytest.fixture(scope="module")
def captioner(tiny_vocabulary: Path) -> XGPTHubInterface:
    return build_captioner(tiny_vocabulary)


def test_captions_of_photos_with_attention(captioner: XGPTHubInterface, photos: list[Path]) -> None:  # noqa: F811
    found = captioner.caption(photos[:3], return_attention=True, batch_size=2)
    assert [each.text for each in found] == captioner.caption(photos[:3])
    assert found == captioner.caption(photos[:3], return_scores=True)
    assert captioner.caption(photos[0], return_scores=True)[0].attention is None
    for each, photo in zip(found, photos, strict=False):
        looks = each.attention
        assert looks is not None and len(looks.words) == len(looks.weights) > 3
        assert [each.text[word.start : word.end] for word in looks.words] == [word.text for word in looks.words]
        assert "".join(word.text for word in looks.words) == each.text.replace(" ", "")
        [regions] = captioner.extractor.extract([captioner.extractor.load(photo)])
        np.testing.assert_array_equal(looks.boxes, regions.boxes)
        np.testing.assert_allclose(looks.weights.sum(axis=1), 1, rtol=1e-5)
        assert looks.weights.shape == (len(looks.words), len(regions.boxes))
    [chosen] = captioner.caption(photos[0], return_attention=True, heads=Heads(layers=[1]))
    assert chosen.attention is not None and found[0].attention is not None
    assert not np.allclose(chosen.attention.weights, found[0].attention.weights, atol=1e-4)


def test_a_word_of_several_subwords_has_their_mean(captioner: XGPTHubInterface) -> None:
    text, vocabulary = "a dogcat on the tabletable.", captioner.vocabulary
    tokens = torch.tensor([*vocabulary.encode_list(text), vocabulary.dictionary.eos()])
    weights = np.random.default_rng(0).dirichlet(np.ones(4), len(tokens)).astype(np.float32)
    found = word_attention(tokens, text, weights, np.zeros((4, 4), np.float32), vocabulary)
    assert [word.text for word in found.words] == ["a", "dogcat", "on", "the", "tabletable", "."]
    assert found.words[1].last - found.words[1].first > 1
    for word, mean in zip(found.words, found.weights, strict=True):
        np.testing.assert_allclose(mean, sum(weights[word.first : word.last]) / (word.last - word.first), rtol=1e-5)
        assert mean.sum() == pytest.approx(1, abs=1e-5)


def test_given_captions_of_a_store(
    captioner: XGPTHubInterface, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = RegionStore(write_store(tmp_path / "store", feature_dim=1280, images=[7, 5]))
    texts = ["a red cat sleeps.", ""]
    first, second = captioner.attention_of(store, [1, 0], texts)
    assert [word.text for word in first.words] == ["a", "red", "cat", "sleeps", "."]
    assert second.words == [] and second.weights.shape == (0, len(second.boxes))
    np.testing.assert_array_equal(first.boxes, store.boxes(1))
    ids = torch.tensor([*captioner.vocabulary.encode_list(texts[0]), 2])
    [alone] = image_attention(captioner.model, load_regions(store, np.array([1])), [ids])
    np.testing.assert_allclose(first.weights, alone[:-1], rtol=1e-3, atol=1e-5)
    with pytest.raises(DataError, match=r"image 7: the caption 'a cat a cat .* has 401 tokens, the model knows"):
        captioner.attention_of(store, [0], [" ".join(["a cat"] * 200)])
