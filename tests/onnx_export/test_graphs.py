"""Every structure, exported and searched in numpy: captions and scores of fairseq's search over the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.models import small
from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.search.generator import SearchOptions, build_generator
from xgpt_fairseq.word_attention import Heads, image_attention

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from xgpt_fairseq.onnx_export import storage, tracing
from xgpt_runtime import attention
from xgpt_runtime import graphs as runtime_graphs
from xgpt_runtime import search as runtime_search

EOS = 2
# Of one region and of many, together (padded) and alone.
BATCHES = [[5, 1, 9, 3, 5], [4], [1]]
SEARCHES: list[dict[str, Any]] = [
    {"beam": 1}, {"beam": 2}, {"beam": 5}, {"beam": 3, "lenpen": 0.4, "max_len_b": 6}, {"beam": 2, "min_len": 7},
    {"beam": 4, "no_repeat_ngram_size": 1}, {"beam": 2, "no_repeat_ngram_size": 2}, {"beam": 2, "max_len_b": 1},
]  # fmt: skip


class Exported(NamedTuple):
    """A model, what of its words it never says, and the folder of its graphs."""

    model: XGPTModel
    config: XGPTConfig
    suppressed: list[str]
    folder: Path

    def images(self, counts: list[int]) -> dict[str, torch.Tensor]:
        assert self.config.feature_dim
        return small.images(counts, seed=len(counts), width=self.config.feature_dim)


# Exporting takes half a minute. The one that is not thorough is the captioner of other tests, which has the default
# structure; its photo's network is in the folder, too.
@pytest.fixture(
    scope="module",
    params=[
        "lite",
        # the model's options, and what makes its random captions end early enough and late enough
        pytest.param(
            (
                {"normalize_before": True, "normalize_regions": True, "no_segment_embedding": True, "refine_layers": 0},
                5,
            ),
            marks=pytest.mark.thorough,
        ),
        pytest.param(({"sharing": "enc-dec", "normalize_before": True}, 3), marks=pytest.mark.thorough),
        pytest.param(({"sharing": "enc"}, 3), marks=pytest.mark.thorough),
    ],
    ids=lambda params: params if isinstance(params, str) else " ".join(map(str, params[0].values())),
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a model that has captioned before, and so has packed its weights."""
    if request.param == "lite":
        bundle = Bundle.read(request.getfixturevalue("tiny_bundle"))
        return Exported(
            bundle.model, bundle.config, bundle.vocabulary.suppressed_symbols, request.getfixturevalue("lite_folder")
        )
    options, bias = request.param
    model = small.build(**options)
    sizes = {"layers": small.LAYERS, "hidden_size": small.HIDDEN, "attention_heads": small.HEADS}
    config = XGPTConfig(**sizes, feature_dim=small.WIDTH, max_target_positions=24)
    with torch.no_grad():
        model.decoder.output.bias[EOS] += bias
    dictionary = model.decoder.dictionary
    made = Exported(model, config, [dictionary.bos_word, dictionary[23]], tmp_path_factory.mktemp("graphs"))
    by_fairseq(made, made.images([3]), {"beam": 2})
    written = {
        "regions.onnx": tracing.regions_graph(model, config),
        "step.onnx": tracing.step_graph(model, config, never=[1, 3, 0, 23], eos=EOS),
        "look.onnx": tracing.look_graph(model, config, eos=EOS),
    }
    storage.write_graphs(written, made.folder, storage="float32")
    return made


def by_fairseq(
    exported: Exported, images: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> list[list[tuple[list[int], float]]]:
    dictionary = exported.model.decoder.dictionary
    vocabulary: Any = SimpleNamespace(dictionary=dictionary, suppressed_symbols=exported.suppressed)
    generator = build_generator([exported.model], vocabulary, SearchOptions(**options))
    with torch.inference_mode():
        found = generator.generate([], {"net_input": images})
    return [[(each["tokens"].tolist()[:-1], float(each["score"])) for each in of_image] for of_image in found]


def decoder_of(exported: Exported, images: Mapping[str, torch.Tensor]) -> runtime_graphs.Images:
    real = (~images["padding_mask"]).numpy()
    features, boxes = ([v[m] for v, m in zip(images[n].numpy(), real, strict=True)] for n in ("features", "boxes"))
    opened = [runtime_graphs.open_graph(exported.folder / name) for name in ("regions.onnx", "step.onnx")]
    sizes = {name: getattr(exported.config, name) for name in ("layers", "attention_heads", "hidden_size")}
    return runtime_graphs.Images(*opened, features, boxes, sizes)


def by_runtime(
    exported: Exported, images: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> list[list[tuple[list[int], float]]]:
    real = (~images["padding_mask"]).numpy()
    found = runtime_search.search(
        decoder_of(exported, images),
        len(real),
        symbols=len(exported.model.decoder.dictionary),
        eos=EOS,
        max_positions=exported.config.max_target_positions,
        options=runtime_search.SearchOptions(**options),
    )
    return [[(list(each.tokens), each.score) for each in of_image] for of_image in found]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_captions_and_scores_are_those_of_fairseq(exported: Exported, options: Mapping[str, Any]) -> None:
    for counts in BATCHES:
        images = exported.images(counts)
        expected, found = by_fairseq(exported, images, options), by_runtime(exported, images, options)
        assert [[words for words, _ in each] for each in found] == [[words for words, _ in each] for each in expected]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose([s for _, s in ours], [s for _, s in theirs], atol=1e-5)


def test_what_no_caption_has_is_never_best(exported: Exported) -> None:
    """Padding, unknown words, and what is suppressed: a captioner that has learned its texts avoids them anyway."""
    symbols = exported.model.decoder.dictionary
    decoder = decoder_of(exported, exported.images([3]))
    best, ids, _ = decoder.step(np.full((1, 1), EOS), 0, np.ones((1, 1, 1, 1), dtype=bool), len(symbols))
    assert sorted(ids.ravel()) == list(range(len(symbols)))
    never = {symbols.pad(), symbols.unk(), *(symbols.index(word) for word in exported.suppressed)}
    assert set(ids[np.isneginf(best)]) == never and len(never) >= 3


@pytest.mark.parametrize("heads", [Heads(), Heads([2], [1, 3])], ids=["mean", "chosen"])
def test_the_attention_is_that_of_the_model(exported: Exported, heads: Heads) -> None:
    """Also of a caption of the end alone, and of all positions, with padding between them."""
    look = runtime_graphs.open_graph(exported.folder / "look.onnx")
    positions = exported.config.max_target_positions
    for counts in BATCHES:
        images = exported.images(counts)
        captions = [[5, 6, 7], [9, 4, 11, 8, 5], [], [10], list(range(positions - 1))][: len(counts)]
        ended = [torch.tensor([*caption, EOS]) for caption in captions]
        expected = image_attention(exported.model, images, ended, heads)
        weights = decoder_of(exported, images).look(look, captions, EOS)
        mean = attention.mean_weights(weights, attention.Heads(heads.layers, heads.heads))
        for ours, theirs in zip(mean, expected, strict=True):
            tokens, regions = theirs.shape
            np.testing.assert_allclose(ours[:tokens, :regions], theirs, atol=1e-5)
            assert not ours[:tokens, regions:].any()


def test_the_searches_find_captions_of_several_lengths(exported: Exported) -> None:
    """Or the test above would say little."""
    lists = by_runtime(exported, exported.images(BATCHES[0]), {"beam": 5})
    lengths = {len(words) for each in lists for words, _ in each}
    assert len(lengths) > 2 and all(len(each) == 5 for each in lists)
    longest = exported.config.max_target_positions - 1
    limit = by_runtime(exported, exported.images(BATCHES[0]), {"beam": 2, "min_len": longest})
    assert {len(words) for each in limit for words, _ in each} == {longest}


def test_a_cache_grows_from_nothing(exported: Exported) -> None:
    """The first step's keys and values have no positions, and no size of the trace is left in a graph."""
    import onnx

    for name in ("regions.onnx", "step.onnx", "look.onnx"):
        graph = onnx.load(exported.folder / name, load_external_data=False).graph
        sizes = {size.dim_param for value in graph.input for size in value.type.tensor_type.shape.dim}
        assert sizes <= {"", "images", "regions", "rows", "kept", "kept_and_rows", "tokens"}


def test_the_graphs_share_weights(exported: Exported) -> None:
    parameters = exported.model.named_parameters()
    used = {id(p): p for name, p in parameters if not name.startswith(("heads.", "encoder.alignment."))}
    largest = sum(p.numel() * 4 for p in used.values() if p.numel() * 4 > 1024)
    assert (exported.folder / "weights.bin").stat().st_size <= largest + 64 * len(used) + photo_weights(exported.folder)


def photo_weights(folder: Path) -> int:
    """Bytes of the weights of the network that sees photos."""
    import onnx

    if not (folder / "photo.onnx").exists():
        return 0
    weights = onnx.load(folder / "photo.onnx", load_external_data=False).graph.initializer
    lengths = [int(each.value) for weight in weights for each in weight.external_data if each.key == "length"]
    assert lengths
    return sum(lengths) + 64 * len(lengths)
