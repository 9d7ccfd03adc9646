"""A trained model that captions photos: fairseq's hub interface, and the bundle that `xgpt-export` writes.

    from xgpt_fairseq.models.xgpt import XGPTModel

    model = XGPTModel.from_pretrained("bundle")
    model.caption(["photo.jpg", "another.jpg"])          # ["a man rides a horse.", …]

A bundle is a folder with everything that captioning needs, and nothing that only training needs:

    bundle.json          format version; the model's structure and sizes; settings for the regions of photos
    model.safetensors    the parameters
    dict.txt, vocabulary.json, bpe.codes or bpe.model
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.caption_dataset import load_regions, pad_regions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_directory, read_description, write_json
from xgpt_fairseq.loading import build_model, model_config, trained_width
from xgpt_fairseq.models.transfer import check_boxes
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.precision import autocast
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.search.generator import SearchOptions, build_generator
from xgpt_fairseq.text.vocabulary import FILES, Vocabulary

if TYPE_CHECKING:
    from xgpt_fairseq.vision.extractor import RegionExtractor, Regions
    from xgpt_fairseq.vision.photos import Photo

BUNDLE_VERSION = 1
WEIGHTS = "model.safetensors"

Key = TypeVar("Key")
Boxes = npt.NDArray[np.floating[Any]]
LoadedPhoto = tuple[Key, "Photo", Boxes | None]

# Photos whose regions are extracted together.
PHOTOS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of the captions that a search finds for an image.

    Attributes:
        text: the detokenized caption.
        tokens: its length in generated subwords, without the end of sentence.
        score: fairseq's: its log-probability, the end of sentence included, divided by that length to the power of
            `SearchOptions.lenpen`, so per token where that is 1. The natural logarithm.
    """

    text: str
    tokens: int
    score: float


class XGPTHubInterface(nn.Module):
    """A model, its vocabulary, and the settings that turn photos into regions.

    Args:
        model: the trained model.
        config: the configuration that it was built from.
        vocabulary: its vocabulary.
        extractor_settings: settings of the region extractor (`RegionExtractor.settings`) for its training regions; None
            if they did not come from our extractor: then only region stores can be captioned.
        trained_on: origin of the training regions in words, for error messages.
    """

    def __init__(
        self,
        model: XGPTModel,
        config: XGPTConfig,
        vocabulary: Vocabulary,
        *,
        extractor_settings: Mapping[str, Any] | None,
        trained_on: str,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.config = config
        self.vocabulary = vocabulary
        self.extractor_settings = extractor_settings
        self.trained_on = trained_on

    @classmethod
    def from_path(cls, path: Path | str, *, data: Path | str | None = None) -> XGPTHubInterface:
        """Open a bundle, or a checkpoint with its data directory.

        Args:
            path: a folder that `xgpt-export` wrote, or a checkpoint.
            data: the data directory of a checkpoint; None: the one that it was trained on.

        Raises:
            DataError: *path* is neither of the two, or damaged.
        """
        path = Path(path)
        if path.is_dir():
            if data is not None:
                raise DataError(f"{path} is a bundle, which needs no data directory; only checkpoints do")
            return cls._from_bundle(path)
        return cls._from_checkpoint(path, data)

    @classmethod
    def _from_bundle(cls, path: Path) -> XGPTHubInterface:
        file = path / "bundle.json"
        value = read_description(file, what="a bundle", made_by="xgpt-export", newest=BUNDLE_VERSION)
        vocabulary = Vocabulary(path)
        try:
            options = dict(value["model"])
            options.pop("tifg_target", None)  # in bundles of earlier versions; now an option of TIFG
            config = XGPTConfig(**options)
            extractor_settings, trained_on = value["extractor"], value["trained_on"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{file} is damaged: {error}") from None
        model = build_model(config, vocabulary)
        weights = path / WEIGHTS
        safetensors = _safetensors()
        try:
            state = safetensors.load_file(weights)
        except FileNotFoundError:
            raise DataError(f"{weights} is missing; export the model again") from None
        except Exception as error:  # bytes that are damaged
            raise DataError(f"{weights} is damaged or cut short: {error}") from None
        model.load_state_dict(state)
        return cls(model, config, vocabulary, extractor_settings=extractor_settings, trained_on=trained_on)

    @classmethod
    def _from_checkpoint(cls, path: Path, data: Path | str | None) -> XGPTHubInterface:
        state = load_checkpoint(path)
        config, task = model_config(path, state), (state.get("cfg") or {}).get("task") or {}
        if data is None and "data" not in task:
            raise DataError(f"{path} does not say which data it was trained on: name the data directory")
        directory = DataDirectory(data if data is not None else task["data"])
        source = directory.regions.source
        extractor = source.get("extractor")
        config.feature_dim = trained_width(path, state)
        model = build_model(config, directory.vocabulary)
        model.load_state_dict(state["model"])
        name = Path(source.get("path", directory.regions_path)).name
        trained_on = f"regions of {source.get('format', 'an unknown format')} ({name})"
        return cls(model, config, directory.vocabulary, extractor_settings=extractor, trained_on=trained_on)

    def save(self, output: Path) -> None:
        """Write a bundle to *output*, complete or not at all.

        Raises:
            DataError: safetensors is not installed.
        """
        safetensors = _safetensors()
        fields = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(XGPTConfig)}
        model = {name: str(v) if isinstance(v, str) else v for name, v in fields.items() if not name.startswith("_")}
        value = {
            "version": BUNDLE_VERSION,
            "model": model,
            "extractor": self.extractor_settings,
            "trained_on": self.trained_on,
        }
        state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        with atomic_directory(output, last="bundle.json", files=[*FILES, WEIGHTS, "bundle.json"]) as aside:
            (aside / WEIGHTS).write_bytes(safetensors.save(state))
            self.vocabulary.copy_to(aside)
            write_json(aside / "bundle.json", value)

    @property
    def device(self) -> torch.device:
        """The device of the model; `.to(device)` moves it."""
        return self.model.dictionary_digest.device

    @cached_property
    def extractor(self) -> RegionExtractor:
        """Extracts regions from photos in the way of the model's training regions.

        Raises:
            DataError: the training regions are of another origin, or the extra `photos` is not installed.
        """
        if self.extractor_settings is None:
            raise DataError(
                f"the model was trained on {self.trained_on}, which cannot be made from photos here: give a region "
                "store of the same features, or train on regions of xgpt-extract-regions"
            )
        from xgpt_fairseq.vision.extractor import RegionExtractor

        return RegionExtractor.from_settings(self.extractor_settings, device=str(self.device))

    def caption(
        self,
        photos: Sequence[Path | str],
        *,
        boxes: Sequence[Boxes] | None = None,
        options: SearchOptions | None = None,
        batch_size: int = 32,
    ) -> list[str]:
        """Caption photos.

        Args:
            photos: the files.
            boxes: of each photo (n, 4) x1 y1 x2 y2 in 0..1, for a model that was trained on a detector's boxes.
            options: options of the search.
            batch_size: photos per batch of the search.

        Returns:
            list: one caption per photo.

        Raises:
            PhotoError: a file cannot be read as a photo.
            DataError: the model needs boxes and none are given; also see `extractor`.
        """
        given = boxes if boxes is not None else [None] * len(photos)
        loaded = (
            (None, self.extractor.load(Path(photo)), corners) for photo, corners in zip(photos, given, strict=True)
        )
        return [caption for _, caption in self.caption_loaded(loaded, options=options, batch_size=batch_size)]

    def caption_loaded(
        self, photos: Iterable[LoadedPhoto[Key]], *, options: SearchOptions | None = None, batch_size: int = 32
    ) -> Iterator[tuple[Key, str]]:
        """Caption photos as they come.

        Args:
            photos: for each its name, the photo, and its boxes or None; see `caption`.

        Yields:
            tuple: the name and the caption of each photo, in order.
        """

        def regions() -> Iterator[tuple[Key, Any, Any]]:
            stream = iter(photos)
            while chunk := list(islice(stream, PHOTOS_AT_ONCE)):
                boxes = [corners for *_, corners in chunk if corners is not None]
                found = self.extractor.extract([photo for _, photo, _ in chunk], boxes or None)
                for (key, *_), each in zip(chunk, found, strict=True):
                    yield key, each.features, each.boxes

        return self._caption(regions(), options, batch_size)

    def caption_store(
        self, store: RegionStore, options: SearchOptions | None = None, batch_size: int = 32
    ) -> Iterator[tuple[str, str]]:
        """Caption the images of a region store, in its order: (image id, caption).

        Raises:
            DataError: its features do not have the model's width.
        """
        self.check_store(store)
        images = ((store.image_id(row), store.features(row), store.boxes(row)) for row in range(len(store)))
        return self._caption(images, options, batch_size)

    def check_store(self, store: RegionStore) -> None:
        """Refuse a store that the model cannot read.

        Raises:
            DataError: its features have another width than the model's, or it has boxes and the model none, or reverse.
        """
        check_boxes(store.has_boxes, self.model.has_boxes is not False, str(store.path))
        if store.feature_dim != self.config.feature_dim:
            raise DataError(
                f"the region store {store.path} has features of width {store.feature_dim}, the model was trained on "
                f"width {self.config.feature_dim} ({self.trained_on})"
            )

    def candidates(self, store: RegionStore, rows: Sequence[int], options: SearchOptions) -> list[list[Candidate]]:
        """All captions that one search finds for the images *rows* of a region store, decoded in one batch, best first.

        Sampling draws `options.beam` independent captions per image from torch's generator.
        """
        return self._candidates(load_regions(store, np.asarray(rows)), options)

    def candidates_of_regions(self, regions: Sequence[Regions], options: SearchOptions) -> list[list[Candidate]]:
        """The same for photos, by their *regions* from `extractor`."""
        images = pad_regions([each.features for each in regions], [each.boxes for each in regions])
        return self._candidates(images, options)

    @torch.inference_mode()
    def _candidates(self, images: Mapping[str, Tensor], options: SearchOptions) -> list[list[Candidate]]:
        generator = build_generator([self.model], self.vocabulary, options)
        return [
            [
                Candidate(self._to_text(each["tokens"]), len(each["tokens"]) - 1, float(each["score"]))
                for each in hypotheses
            ]
            for hypotheses in self._search(generator, images, options)
        ]

    @torch.inference_mode()
    def _caption(
        self, images: Iterable[tuple[Key, Any, Any]], options: SearchOptions | None, batch_size: int
    ) -> Iterator[tuple[Key, str]]:
        """(name, features (n, D), boxes (n, 4)) → (name, caption)."""
        options = options or SearchOptions()
        generator = build_generator([self.model], self.vocabulary, options)
        stream = iter(images)
        while batch := list(islice(stream, batch_size)):
            net_input = pad_regions([features for _, features, _ in batch], [boxes for *_, boxes in batch])
            found = self._search(generator, net_input, options)
            for (name, *_), hypotheses in zip(batch, found, strict=True):
                yield name, self._to_text(hypotheses[0]["tokens"])

    def _search(self, generator: SequenceGenerator, images: Mapping[str, Tensor], options: SearchOptions) -> Any:
        """The hypotheses of each of the padded *images* (see `pad_regions`), best first."""
        net_input = {name: tensor.to(self.device) for name, tensor in images.items()}
        with autocast(options.cpu_bf16):
            return generator.generate([], {"net_input": net_input})

    def _to_text(self, tokens: Tensor) -> str:
        return self.vocabulary.decode(self.vocabulary.dictionary.string(tokens.int().cpu()))


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise DataError('bundles need the package safetensors: pip install "xgpt-fairseq[bundle]"') from None
    return safetensors.torch
