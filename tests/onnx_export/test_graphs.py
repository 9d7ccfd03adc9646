"""Every structure, exported and searched in numpy: captions and scores of fairseq's search over the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import small
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.search.generator import SearchOptions, build_generator
from xgpt_fairseq.word_attention import Heads, image_attention

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from xgpt_fairseq.onnx_export import storage, tracing
from xgpt_runtime import attention
from xgpt_runtime import graphs as runtime_graphs
from xgpt_runtime import search as runtime_search

CONFIG = XGPTConfig(layers=small.LAYERS, hidden_size=small.HIDDEN, attention_heads=small.HEADS, feature_dim=small.WIDTH)
EOS, POSITIONS = 2, 24
# Of one region and of many, together (padded) and alone.
BATCHES = [[5, 1, 9, 3, 5], [4], [1]]
SIZES = {"layers": small.LAYERS, "attention_heads": small.HEADS, "hidden_size": small.HIDDEN}
SEARCHES: list[dict[str, Any]] = [
    {"beam": 1}, {"beam": 2}, {"beam": 5}, {"beam": 3, "lenpen": 0.4, "max_len_b": 6}, {"beam": 2, "min_len": 7},
    {"beam": 4, "no_repeat_ngram_size": 1}, {"beam": 2, "no_repeat_ngram_size": 2}, {"beam": 2, "max_len_b": 1},
]  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        # the model's options, and what makes its random captions end early enough and late enough
        pytest.param(({}, 3), marks=pytest.mark.thorough),
        pytest.param(
            (
                {"normalize_before": True, "normalize_regions": True, "no_segment_embedding": True, "refine_layers": 0},
                5,
            ),
            marks=pytest.mark.thorough,
        ),
        pytest.param(({"sharing": "enc-dec", "normalize_before": True}, 3), marks=pytest.mark.thorough),
        ({"sharing": "enc"}, 3),
    ],
    ids=lambda params: " ".join(map(str, params[0].values())) or "default",
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[XGPTModel, Path]:
    """A model that has captioned, and so has packed its weights; and the folder of its graphs."""
    options, bias = request.param
    model = small.build(**options)
    with torch.no_grad():
        model.decoder.output.bias[EOS] += bias
    by_fairseq(model, small.images([3]), {"beam": 2})
    folder = tmp_path_factory.mktemp("graphs")
    written = {
        "regions.onnx": tracing.regions_graph(model, CONFIG),
        "step.onnx": tracing.step_graph(model, CONFIG, never=[1, 3, 0, 23], eos=EOS),
        "look.onnx": tracing.look_graph(model, CONFIG, eos=EOS),
    }
    storage.write_graphs(written, folder, storage="float32")
    return model, folder


def by_fairseq(
    model: XGPTModel, images: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> list[list[tuple[list[int], float]]]:
    dictionary = model.decoder.dictionary
    suppressed = [dictionary.bos_word, dictionary[23]]
    vocabulary: Any = SimpleNamespace(dictionary=dictionary, suppressed_symbols=suppressed)
    with torch.inference_mode():
        found = build_generator([model], vocabulary, SearchOptions(**options)).generate([], {"net_input": images})
    return [[(each["tokens"].tolist()[:-1], float(each["score"])) for each in of_image] for of_image in found]


def decoder_of(folder: Path, images: Mapping[str, torch.Tensor]) -> runtime_graphs.Images:
    real = (~images["padding_mask"]).numpy()
    features, boxes = ([v[m] for v, m in zip(images[n].numpy(), real, strict=True)] for n in ("features", "boxes"))
    opened = [runtime_graphs.open_graph(folder / name) for name in ("regions.onnx", "step.onnx")]
    return runtime_graphs.Images(*opened, features, boxes, SIZES)


def by_runtime(
    folder: Path, images: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> list[list[tuple[list[int], float]]]:
    real = (~images["padding_mask"]).numpy()
    decoder = decoder_of(folder, images)
    given = runtime_search.SearchOptions(**options)
    found = runtime_search.search(decoder, len(real), symbols=24, eos=EOS, max_positions=POSITIONS, options=given)
    return [[(list(each.tokens), each.score) for each in of_image] for of_image in found]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_captions_and_scores_are_those_of_fairseq(exported: tuple[XGPTModel, Path], options: Mapping[str, Any]) -> None:
    model, folder = exported
    for counts in BATCHES:
        images = small.images(counts, seed=len(counts))
        expected, found = by_fairseq(model, images, options), by_runtime(folder, images, options)
        assert [[words for words, _ in each] for each in found] == [[words for words, _ in each] for each in expected]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose([s for _, s in ours], [s for _, s in theirs], atol=1e-5)


@pytest.mark.parametrize("heads", [Heads(), Heads([2], [1, 3])], ids=["mean", "chosen"])
def test_the_attention_is_that_of_the_model(exported: tuple[XGPTModel, Path], heads: Heads) -> None:
    """Also of a caption of the end alone, and of all positions, with padding between them."""
    model, folder = exported
    look = runtime_graphs.open_graph(folder / "look.onnx")
    for counts in BATCHES:
        images = small.images(counts, seed=len(counts))
        captions = [[5, 6, 7], [9, 4, 11, 8, 5], [], [10], list(range(POSITIONS - 1))][: len(counts)]
        ended = [torch.tensor([*caption, EOS]) for caption in captions]
        expected = image_attention(model, images, ended, heads)
        weights = decoder_of(folder, images).look(look, captions, EOS)
        mean = attention.mean_weights(weights, attention.Heads(heads.layers, heads.heads))
        for ours, theirs in zip(mean, expected, strict=True):
            tokens, regions = theirs.shape
            np.testing.assert_allclose(ours[:tokens, :regions], theirs, atol=1e-5)
            assert not ours[:tokens, regions:].any()


def test_the_searches_find_captions_of_several_lengths(exported: tuple[XGPTModel, Path]) -> None:
    """Or the test above would say little."""
    lists = by_runtime(exported[1], small.images(BATCHES[0]), {"beam": 5})
    lengths = {len(words) for each in lists for words, _ in each}
    assert len(lengths) > 2 and all(len(each) == 5 for each in lists)
    limit = by_runtime(exported[1], small.images(BATCHES[0]), {"beam": 2, "min_len": 23})
    assert {len(words) for each in limit for words, _ in each} == {POSITIONS - 1}


def test_a_cache_grows_from_nothing(exported: tuple[XGPTModel, Path]) -> None:
    """The first step's keys and values have no positions, and no size of the trace is left in a graph."""
    import onnx

    for name in ("regions.onnx", "step.onnx", "look.onnx"):
        graph = onnx.load(exported[1] / name, load_external_data=False).graph
        sizes = {size.dim_param for value in graph.input for size in value.type.tensor_type.shape.dim}
        assert sizes <= {"", "images", "regions", "rows", "kept", "kept_and_rows", "tokens"}


def test_the_graphs_share_weights(exported: tuple[XGPTModel, Path]) -> None:
    model, folder = exported
    used = {id(p): p for name, p in model.named_parameters() if not name.startswith(("heads.", "encoder.alignment."))}
    largest = sum(p.numel() * 4 for p in used.values() if p.numel() * 4 > 1024)
    assert (folder / "weights.bin").stat().st_size <= largest + 64 * len(used)
