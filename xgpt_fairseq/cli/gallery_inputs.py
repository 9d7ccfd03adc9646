"""What xgpt-gallery reads besides the data directory: systems with their scores, models' attention, credits."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.captions.generated import read_captions
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.cider import Cider
from xgpt_fairseq.metrics.ptb import PtbTokenizer
from xgpt_fairseq.metrics.scores import Tokenize, score_systems
from xgpt_fairseq.metrics.segmentation import segment
from xgpt_fairseq.pages.gallery import System
from xgpt_fairseq.pages.page import Credit
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.text.scripts import count_spacing
from xgpt_fairseq.word_attention import Heads

if TYPE_CHECKING:
    from xgpt_fairseq.data.directory import DataDirectory
    from xgpt_fairseq.hub_interface import XGPTHubInterface

_AT_ONCE = 32  # images whose attention is computed together


def read_systems(
    arguments: Sequence[str], references: References, metrics: Sequence[str], *, segmentation: str | None = None
) -> list[System]:
    """The captions of each of *arguments*, `NAME=FILE`, with their scores, and what CIDEr rewards where it is one.

    Args:
        segmentation: as of `score_systems`; None: characters where the references have no spaces between words, which
            is said on the standard error.

    Raises:
        DataError: an argument is not NAME=FILE, or a name is used twice; also see `read_captions`, `score_systems`.
    """
    files = _named(arguments, option="--captions", example="base=out/generate-test.txt", value="FILE")
    captions = {name: read_captions(file, references) for name, file in files.items()}  # all, before the slow part
    tokenize = _tokenizer(references, segmentation)
    found = score_systems(list(captions.values()), references, metrics, tokenize=tokenize)
    cider = None
    if any("CIDEr" in scores.corpus for scores in found):
        cider = Cider([tokenize(of_image) for of_image in references.captions.values()])
    systems = []
    for name, scores in zip(captions, found, strict=True):
        for metric, reason in scores.left_out.items():
            print(f"{name}: {metric} left out: {reason}", file=sys.stderr)
        if not scores.corpus:
            raise DataError(f"--metrics {','.join(metrics)}: none could be computed")
        ngrams = {}
        if cider is not None:
            words = zip(captions[name], tokenize(list(captions[name].values())), strict=True)
            ngrams = {image_id: cider.explain(index, said) for index, (image_id, said) in enumerate(words)}
        systems.append(System(name, captions[name], scores, ngrams=ngrams))
    return systems


def _tokenizer(references: References, segmentation: str | None) -> Tokenize:
    """What cuts captions into words, for scores and for what CIDEr rewards alike."""
    if segmentation is None:
        spacing = count_spacing(caption for of_image in references.captions.values() for caption in of_image)
        segmentation = "char" if spacing.joins_words else "none"
        if spacing.joins_words:
            print("captions without spaces between words: scores are of characters (--segment char)", file=sys.stderr)
    return PtbTokenizer() if segmentation == "none" else partial(segment, by=segmentation)


def models_of(args: argparse.Namespace) -> dict[str, Path]:
    """The models of --attention by the name of their captions.

    Raises:
        DataError: one is not NAME=MODEL, or has no captions.
    """
    models = _named(args.attention, option="--attention", example="base=checkpoints/averaged.pt", value="MODEL")
    names = [argument.partition("=")[0] for argument in args.captions]
    for name in models:
        if name not in names:
            raise DataError(f"--attention {name}=…: there are no --captions of that name, only {', '.join(names)}")
    return models


def _named(arguments: Sequence[str], *, option: str, example: str, value: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not (name and equals and file):
            raise DataError(f"{option} {argument!r} is not NAME={value}, such as {example}")
        if name in files:
            raise DataError(f"{option}: {files[name]} and {file} are both called {name!r}; names must differ")
        files[name] = Path(file)
    return files


def heads_of(args: argparse.Namespace) -> Heads:
    """The layers and heads of --attention-layers and --attention-heads.

    Raises:
        DataError: not numbers, from 1 on, with commas.
    """

    def numbers(option: str, text: str | None) -> list[int] | None:
        if text is None:
            return None
        parts = text.split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise DataError(f"{option} {text!r}: numbers from 1 on, with commas, such as 5,6")
        return [int(part) for part in parts]

    heads = Heads(
        numbers("--attention-layers", args.attention_layers), numbers("--attention-heads", args.attention_heads)
    )
    if (heads.layers or heads.heads) and not args.attention:
        raise DataError("--attention-layers and --attention-heads need models: --attention NAME=MODEL")
    return heads


def add_attention(
    systems: Sequence[System],
    models: Mapping[str, Path],
    data: DataDirectory,
    image_ids: Sequence[str],
    *,
    heads: Heads,
    device: str,
    regions: Path | None = None,
) -> list[System]:
    """The *systems*, those that have a model with its attention for the images *image_ids*.

    Args:
        regions: the store of --regions, for a checkpoint whose own is not where it was trained.

    Raises:
        DataError: a model cannot be loaded, cannot read the regions, or has no such layer or head.
    """
    from tqdm import tqdm

    store = data.regions
    opened = {}
    for name, path in models.items():  # all, before the slow part
        captioner = _opened(path, data, regions).to(device)
        captioner.check_store(store)
        decoder = captioner.model.decoder
        heads.check(layers=len(decoder.layers), heads=decoder.layers[0].attention.heads)
        opened[name] = captioner
    found = []
    for system in systems:
        looks: dict[str, Any] = {}
        if system.name in opened:
            bar = tqdm(total=len(image_ids), desc=f"attention of {system.name}", unit="image", disable=None)
            with bar:
                for first in range(0, len(image_ids), _AT_ONCE):
                    ids = image_ids[first : first + _AT_ONCE]
                    rows = [store.image_index(image_id) for image_id in ids]
                    texts = [system.captions[image_id] for image_id in ids]
                    looks |= zip(ids, opened[system.name].attention_of(store, rows, texts, heads), strict=True)
                    bar.update(len(ids))
        found.append(dataclasses.replace(system, attention=looks))
    return found


def _opened(path: Path, data: DataDirectory, regions: Path | None) -> XGPTHubInterface:
    """The model *path*; a checkpoint whose data or store were moved, with those of the page, if *regions* names them.

    They are asked last: by its own, a checkpoint says with which settings its regions were made, which are compared.
    """
    from xgpt_fairseq.hub_interface import XGPTHubInterface

    try:
        return XGPTHubInterface.from_path(path)
    except DataError:
        if regions is None or path.is_dir():
            raise
        return XGPTHubInterface.from_path(path, data=data.path, regions=regions)


def read_credits(path: Path) -> dict[str, Credit]:
    """Licences and origins of photos: `{image id: {"text", "url", "licence", "licence_url"}}`, all but text optional.

    Raises:
        DataError: the file cannot be read or has something else, or a link is not of http or https.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f'{path}: not {{image id: {{"text": …}}}}')
    known = {each.name for each in dataclasses.fields(Credit)}
    credits = {}
    for image_id, value in content.items():
        if not (isinstance(value, dict) and "text" in value and value.keys() <= known):
            raise DataError(f"{path}: image {image_id}: an object with text and, if known, {', '.join(sorted(known))}")
        for name, text in value.items():
            if not isinstance(text, str) or (name.endswith("url") and not text.startswith(("http://", "https://"))):
                kind = "a link, http://… or https://…" if name.endswith("url") else "a text"
                raise DataError(f"{path}: image {image_id}: {name} is {text!r:.80}, not {kind}")
        credits[canonical_image_id(image_id)] = Credit(**value)
    return credits
