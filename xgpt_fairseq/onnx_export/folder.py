"""A captioner as a folder of ONNX graphs, with all that a runtime needs besides.

    captioner.json   format version; sizes; the form of photos; what the model was trained on
    photo.onnx       pixels → features of regions; missing where the network that sees photos can't be exported
    regions.onnx     features of regions → keys and values
    step.onnx        a step of the search
    look.onnx        where the model looks for each token of a caption; read only if that is asked for
    weights.bin      the weights of all graphs, each once
    words.json       the symbols of the vocabulary by their ids, and how they are joined to text
    novelty.npz      what the training images look like, to warn of others; not in all folders
    README.md        the model card; LICENSE.backbone: the licence of the network that sees photos, where it has a text

`runtime/` reads it, without torch and fairseq. The graphs are described by `graphs`, and their weights by `storage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_directory, write_json
from xgpt_fairseq.onnx_export.storage import WEIGHTS, write_graphs
from xgpt_fairseq.onnx_export.tracing import OPSET, look_graph, photo_graph, regions_graph, step_graph
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.vision.backbones.base import reason_of
from xgpt_fairseq.vision.choices import TOKENS
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photo_extractor import PhotoExtractor
from xgpt_fairseq.vision.photos import Photo

FOLDER_VERSION: Final = 1
DESCRIPTION: Final = "captioner.json"
PHOTO, REGIONS, STEP, LOOK = "photo.onnx", "regions.onnx", "step.onnx", "look.onnx"
WORDS: Final = "words.json"
NOVELTY: Final = "novelty.npz"
CARD: Final = "README.md"
LICENSE: Final = "LICENSE.backbone"

FILES: Final = (DESCRIPTION, PHOTO, REGIONS, STEP, LOOK, WEIGHTS, WORDS, NOVELTY, CARD, LICENSE)

# How far features of the exported network may be from the network's own, relative to their size. Float32 gives 1e-6.
_TOLERANCE: Final = 1e-3
# Sizes of photos that were not traced, for which they are compared.
_TRIED: Final = ((640, 427), (300, 500))


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        megabytes: the size of the folder.
        no_photos: why photos can't be captioned, but only regions; empty: they can.
    """

    megabytes: float
    no_photos: str


def write_folder(
    bundle: Bundle, extractor: PhotoExtractor | None, output: Path, *, storage: str, about: Sequence[str]
) -> Exported:
    """Write *bundle* to the folder *output*, complete or not at all.

    Args:
        bundle: the captioner.
        extractor: of the regions of photos; None: the model's regions are not made from photos here.
        output: the folder.
        storage: of the weights, one of `storage.STORAGES`.
        about: what the captioner is, in lines.

    Raises:
        DataError: a package is missing.
    """
    check_packages()
    photo, no_photos = _photo(bundle, extractor)
    symbols = bundle.vocabulary.dictionary
    never = [symbols.index(word) for word in bundle.vocabulary.suppressed_symbols]
    graphs = {
        **({} if photo is None else {PHOTO: photo}),
        REGIONS: regions_graph(bundle.model, bundle.config),
        STEP: step_graph(bundle.model, bundle.config, never=[symbols.pad(), symbols.unk(), *never], eos=symbols.eos()),
        LOOK: look_graph(bundle.model, bundle.config, eos=symbols.eos()),
    }
    with atomic_directory(output, last=DESCRIPTION, files=FILES) as aside:
        write_graphs(graphs, aside, storage=storage)
        write_json(aside / WORDS, words_of(bundle.vocabulary), indent=None)
        if bundle.novelty is not None:
            of = bundle.novelty
            limits = np.array([of.median, of.limit, of.group_limit], dtype=np.float32)
            np.savez(aside / NOVELTY, mean=of.mean, directions=of.directions.astype(np.float16), limits=limits)
        card, terms = _card(bundle, extractor if photo is not None else None)
        (aside / CARD).write_text(card, encoding="utf-8")
        if terms:
            (aside / LICENSE).write_text(terms, encoding="utf-8")
        described = _description(bundle, extractor if photo is not None else None, no_photos, storage, about)
        write_json(aside / DESCRIPTION, described)
    return Exported(sum(file.stat().st_size for file in output.iterdir()) / 1e6, no_photos)


def check_packages() -> None:
    """Raise DataError if a package of the extra `onnx` is missing."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise DataError(f'--onnx needs the packages {", ".join(missing)}: pip install "xgpt-fairseq[onnx]"')


def _photo(bundle: Bundle, extractor: PhotoExtractor | None) -> tuple[Any, str]:
    """The graph of the network that sees photos, and an empty text; or None, and why there is none."""
    if extractor is None:
        return None, f"the model was trained on {bundle.trained_on}"
    if not isinstance(extractor, RegionExtractor):
        return (
            None,
            f"a detector, {bundle.extractor_settings and bundle.extractor_settings['detector']}, is not exported",
        )
    if extractor.bf16:
        return None, f"{extractor.backbone.name} computed the features in bfloat16, which is not exported"
    try:
        graph = photo_graph(extractor.backbone, of_boxes=extractor.grid != TOKENS)
        away = _distance(graph, extractor)
    except DataError:
        raise
    except Exception as error:  # of any network, in torch's exporter or in onnxruntime
        return None, f"{extractor.backbone.name} can't be exported ({reason_of(error)})"
    if not away <= _TOLERANCE:
        return None, f"{extractor.backbone.name}, exported, computes other features (relative distance {away:.2g})"
    return graph, ""


def _distance(graph: Any, extractor: RegionExtractor) -> float:
    """How far the graph's features of random pixels are at most from the extractor's, relative to their size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    generator = np.random.default_rng(0)
    far = 0.0
    for size in _TRIED:
        width, height = extractor.form.size_of(*size)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        boxes = [np.array([[0.1, 0.2, 0.6, 0.9]], dtype=np.float32)] if extractor.needs_boxes else None
        [expected] = extractor.extract([Photo(pixels, size)], boxes)
        inputs: dict[str, npt.NDArray[Any]] = {"pixels": pixels[None]}
        if extractor.grid != TOKENS:
            inputs["boxes"] = expected.boxes[None]
        [[found]] = session.run(None, inputs)
        wanted = expected.features.astype(np.float32)
        length, error = float(np.linalg.norm(wanted)), float(np.linalg.norm(found.astype(np.float32) - wanted))
        far = max(far, error / max(length, 1e-6))
    return far


def words_of(vocabulary: Vocabulary) -> dict[str, Any]:
    """What `WORDS` holds of a vocabulary."""
    return {
        "version": FOLDER_VERSION,
        "joined": "moses" if vocabulary.bpe == "subword_nmt" else "pieces",
        "keeps_fragile": vocabulary.keeps_fragile,
        "eos": vocabulary.dictionary.eos(),
        "symbols": list(vocabulary.dictionary.symbols),
    }


def _description(
    bundle: Bundle, extractor: PhotoExtractor | None, no_photos: str, storage: str, about: Sequence[str]
) -> Mapping[str, Any]:
    config = bundle.config
    photos = None
    if isinstance(extractor, RegionExtractor):
        photos = {
            "image_size": extractor.form.image_size,
            "stride": extractor.form.stride,
            "square": extractor.form.square,
            "interpolation": extractor.form.interpolation,
            "grid": extractor.grid,
        }
    return {
        "version": FOLDER_VERSION,
        "opset": OPSET,
        "storage": storage,
        "layers": config.layers,
        "attention_heads": config.attention_heads,
        "hidden_size": config.hidden_size,
        "feature_dim": config.feature_dim,
        "max_target_positions": config.max_target_positions,
        "photos": photos,
        "no_photos": no_photos,
        "trained_on": bundle.trained_on,
        "training": bundle.training,
        "about": [*about, f"onnx        opset {OPSET}, weights stored as {storage}"],
    }


def _card(bundle: Bundle, extractor: PhotoExtractor | None) -> tuple[str, str]:
    """The model card, with what is added by this folder, and the text of the licence of the network in it."""
    card = bundle.card.strip() or "# A captioner\n\nIt has no model card."
    if not isinstance(extractor, RegionExtractor):
        return f"{card}\n", ""
    backbone = extractor.backbone
    text = backbone.origin.license_text
    terms = f"Its licence: {backbone.origin.license}" if backbone.origin.license else "Its licence is not known here"
    known = f"{terms}; the text is in {LICENSE}." if text else f"{terms}."
    return (
        f"{card}\n\n## The network that sees photos\n\nThis folder, unlike a bundle, holds the weights of "
        f"{re.sub(r'[^ -~]', '', backbone.name)} as well, turned into a graph of ONNX. {known}\n"
    ), text
