"""A trained model that captions photos: fairseq's hub interface.

from xgpt_fairseq.models.xgpt import XGPTModel

model = XGPTModel.from_pretrained("bundle")
model.caption(["photo.jpg", "another.jpg"])  # ["a man rides a horse.", …]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from xgpt_fairseq.bundle import RELEASED, Bundle
from xgpt_fairseq.candidates import Candidate, Captioned, Key
from xgpt_fairseq.data.caption_dataset import load_regions, pad_regions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.transfer import check_boxes
from xgpt_fairseq.precision import autocast
from xgpt_fairseq.regions.feature_settings import settings_that_differ
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.search.generator import SearchOptions, build_generator
from xgpt_fairseq.word_attention import Heads, WordAttention, image_attention, word_attention

if TYPE_CHECKING:
    from PIL.Image import Image

    from xgpt_fairseq.vision.photo_extractor import PhotoExtractor, Regions
    from xgpt_fairseq.vision.photos import Photo

Boxes = npt.NDArray[np.floating[Any]]
LoadedPhoto = tuple[Key, "Photo", Boxes | None]
Photos = Sequence["Path | str | Image"]

# Photos whose regions are extracted together.
PHOTOS_AT_ONCE = 32


class XGPTHubInterface(nn.Module):
    """A captioner: a model, its vocabulary, and the settings that turn photos into regions.

    Args:
        bundle: all of that.
        backbone_weights: where the weights of the bundle's backbone lie; None: in the bundle, or the published ones.
        offline: never fetch them.
    """

    def __init__(self, bundle: Bundle, *, backbone_weights: Path | None = None, offline: bool = False) -> None:
        super().__init__()
        self.bundle = bundle
        packed = bundle.backbone if isinstance(bundle.backbone, Path) else None
        self.backbone_weights, self.offline = backbone_weights or packed, offline
        self.model = bundle.model.eval()
        self.config = bundle.config
        self.vocabulary = bundle.vocabulary
        self._extractor: PhotoExtractor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the extractor, which holds a lock: copies and unpickled captioners make their own."""
        return {**self.__dict__, "_extractor": None}

    @classmethod
    def from_path(
        cls,
        path: Path | str | None = None,
        *,
        data: Path | str | None = None,
        regions: Path | str | None = None,
        backbone_weights: Path | str | None = None,
        offline: bool = False,
    ) -> XGPTHubInterface:
        """Open a bundle, or a checkpoint with its data directory.

        Args:
            path: a folder that `xgpt-export` wrote, or a checkpoint; None: the captioner in the package (`RELEASED`).
            data: the data directory of a checkpoint; None: the one that it was trained on.
            regions: the region store of a checkpoint; None: the one that it was trained on.
            backbone_weights: where the weights lie that turn photos into regions, if they are not the published ones.
            offline: never fetch those weights.

        Raises:
            DataError: *path* is neither of the two, or damaged.
        """
        if path is None and not RELEASED.is_dir():
            raise DataError("no captioner comes with this version: name a bundle of xgpt-export, or a checkpoint")
        path = RELEASED if path is None else Path(path)
        if path.is_dir() and (data is not None or regions is not None):
            raise DataError(f"{path} is a bundle, which needs no data directory and no regions; only checkpoints do")
        bundle = Bundle.read(path) if path.is_dir() else Bundle.of_checkpoint(path, data, regions)
        weights = None if backbone_weights is None else Path(backbone_weights)
        return cls(bundle, backbone_weights=weights, offline=offline)

    def save(self, output: Path | str) -> None:
        """Write the captioner as a bundle, in place of one that is there: `Bundle.write`.

        Raises:
            DataError: *output* is a file, or a folder with other things than a bundle.
        """
        self.bundle.write(Path(output))

    @property
    def device(self) -> torch.device:
        """The device of the model; `.to(device)` moves it."""
        return self.model.dictionary_digest.device

    @property
    def extractor(self) -> PhotoExtractor:
        """Extracts regions from photos in the way of the model's training regions, on the model's device.

        Raises:
            DataError: the training regions are of another origin, or the extra `photos` is not installed.
        """
        if self.bundle.extractor_settings is None:
            raise DataError(
                f"the model was trained on {self.bundle.trained_on}, which cannot be made from photos here: give a "
                "region store of the same features, or train on regions of xgpt-extract-regions"
            )
        found = self._extractor
        if found is None or found.device != self.device:  # the model was moved; an extractor is no module of it
            from xgpt_fairseq.vision.rebuilding import rebuild

            self._extractor = found = None  # frees its memory before another takes as much
            self._extractor = found = rebuild(
                self.bundle.extractor_settings,
                weights=self.backbone_weights,
                offline=self.offline,
                device=str(self.device),
            )
        return found

    @overload
    def caption(
        self,
        photos: Photos | Path | str | Image,
        *,
        beam: int | None = ...,
        return_scores: Literal[False] = ...,
        return_attention: Literal[False] = ...,
        boxes: Sequence[Boxes] | None = ...,
        options: SearchOptions | None = ...,
        batch_size: int = ...,
    ) -> list[str]: ...

    @overload
    def caption(
        self,
        photos: Photos | Path | str | Image,
        *,
        beam: int | None = ...,
        return_scores: Literal[True],
        return_attention: bool = ...,
        boxes: Sequence[Boxes] | None = ...,
        options: SearchOptions | None = ...,
        batch_size: int = ...,
        heads: Heads | None = ...,
    ) -> list[Candidate]: ...

    @overload
    def caption(
        self,
        photos: Photos | Path | str | Image,
        *,
        beam: int | None = ...,
        return_scores: bool = ...,
        return_attention: Literal[True],
        boxes: Sequence[Boxes] | None = ...,
        options: SearchOptions | None = ...,
        batch_size: int = ...,
        heads: Heads | None = ...,
    ) -> list[Candidate]: ...

    def caption(
        self,
        photos: Photos | Path | str | Image,
        *,
        beam: int | None = None,
        return_scores: bool = False,
        return_attention: bool = False,
        boxes: Sequence[Boxes] | None = None,
        options: SearchOptions | None = None,
        batch_size: int = 32,
        heads: Heads | None = None,
    ) -> list[str] | list[Candidate]:
        """Caption photos.

        Args:
            photos: files, or images of Pillow; one or several.
            beam: beam size; None: that of *options*.
            return_scores: also return what the captions' scores are.
            return_attention: also return where the model looks for each word (`WordAttention`).
            boxes: of each photo (n, 4) x1 y1 x2 y2 in 0..1, for a model that was trained on a detector's boxes.
            options: options of the search.
            batch_size: photos per batch of the search.
            heads: whose attention; None: the mean of all layers and heads.

        Returns:
            list: one caption per photo: its text, or with *return_scores* or *return_attention* a `Candidate`.

        Raises:
            PhotoError: a file cannot be read as a photo, or the network takes no photos of its shape.
            DataError: the model needs boxes and none are given, or has no such layer or head; also see `extractor`.
        """
        options = options or SearchOptions()
        if beam is not None:
            options = dataclasses.replace(options, beam=beam)
        several: Photos = photos if isinstance(photos, Sequence) and not isinstance(photos, str) else [photos]
        given = boxes if boxes is not None else [None] * len(several)
        loaded = (
            (None, self.extractor.load(Path(photo) if isinstance(photo, str | PathLike) else photo), corners)
            for photo, corners in zip(several, given, strict=True)
        )
        looks = (heads or Heads()) if return_attention else None
        captioned = self.caption_loaded(loaded, options=options, batch_size=batch_size, attention=looks)
        found = [each.best for each in captioned]
        return found if return_scores or return_attention else [best.text for best in found]

    def caption_loaded(
        self,
        photos: Iterable[LoadedPhoto[Key]],
        *,
        options: SearchOptions | None = None,
        batch_size: int = 32,
        attention: Heads | None = None,
    ) -> Iterator[Captioned[Key]]:
        """Caption photos as they come.

        Args:
            photos: for each its key, the photo, and its boxes or None; see `caption`.
            attention: whose attention the best captions come with; None: they come without.

        Yields:
            Captioned: each photo with its caption, in order.
        """

        def regions() -> Iterator[tuple[Key, Any, Any]]:
            stream = iter(photos)
            while chunk := list(islice(stream, PHOTOS_AT_ONCE)):
                boxes = [corners for *_, corners in chunk if corners is not None]
                found = self.extractor.extract([photo for _, photo, _ in chunk], boxes or None)
                for (key, *_), each in zip(chunk, found, strict=True):
                    yield key, each.features, each.boxes

        return self._caption(regions(), options, batch_size, attention)

    def caption_store(
        self,
        store: RegionStore,
        options: SearchOptions | None = None,
        batch_size: int = 32,
        rows: Sequence[int] | None = None,
        attention: Heads | None = None,
    ) -> Iterator[Captioned[str]]:
        """Caption the images of a region store, those of *rows* or all, in their order, by their image ids.

        *attention* is that of `caption_loaded`.

        Raises:
            DataError: its features do not have the model's width.
        """
        self.check_store(store)
        chosen = store.ahead(range(len(store)) if rows is None else rows, batch_size)
        images = ((store.image_id(row), store.features(row), store.boxes(row)) for row in chosen)
        return self._caption(images, options, batch_size, attention)

    def attention_of(
        self, store: RegionStore, rows: Sequence[int], captions: Sequence[str], heads: Heads | None = None
    ) -> list[WordAttention]:
        """Where the model looks for each word of given captions of the images *rows* of a region store, in one batch.

        The captions are split into subwords again: that may be another split than the one that a search chose.

        Raises:
            DataError: the model has no such layer or head, or a caption is longer than it can be.
        """
        tokens = []
        for row, text in zip(rows, captions, strict=True):
            tokens.append(torch.tensor([*self.vocabulary.encode_list(text), self.vocabulary.dictionary.eos()]))
            if len(tokens[-1]) > self.model.decoder.max_positions():
                raise DataError(
                    f"image {store.image_id(row)}: the caption {text!r:.60} has {len(tokens[-1])} tokens, the model "
                    f"knows captions of at most {self.model.decoder.max_positions()}"
                )
        images = load_regions(store, np.asarray(rows))
        return self._attend(images, tokens, list(captions), heads)

    def _attend(
        self, images: Mapping[str, Tensor], tokens: Sequence[Tensor], texts: Sequence[str], heads: Heads | None
    ) -> list[WordAttention]:
        weights = image_attention(self.model, images, tokens, heads)
        return [
            word_attention(ids, text, of_caption, boxes[: of_caption.shape[1]].numpy(), self.vocabulary)
            for ids, text, of_caption, boxes in zip(tokens, texts, weights, images["boxes"], strict=True)
        ]

    def check_store(self, store: RegionStore) -> None:
        """Refuse a store that the model cannot read.

        Raises:
            DataError: its features have another width than the model's, or it has boxes and the model none, or reverse,
                or both are of photos, but of another backbone, layer, size or grid.
        """
        check_boxes(store.has_boxes, self.model.has_boxes is not False, str(store.path))
        if store.feature_dim != self.config.feature_dim:
            raise DataError(
                f"the region store {store.path} has features of width {store.feature_dim}, the model was trained on "
                f"width {self.config.feature_dim} ({self.bundle.trained_on})"
            )
        made, trained = store.source.get("extractor"), self.bundle.extractor_settings
        if made is not None and trained is not None:
            for name, there, here in settings_that_differ(made, trained):
                raise DataError(
                    f"the region store {store.path} was made with {name} {there!r}, the model was trained on features "
                    f"with {here!r}: extract the photos' regions again"
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
        return [list(map(self._candidate, found)) for found in self._search(generator, images, options)]

    @torch.inference_mode()
    def _caption(
        self,
        images: Iterable[tuple[Key, Any, Any]],
        options: SearchOptions | None,
        batch_size: int,
        attention: Heads | None = None,
    ) -> Iterator[Captioned[Key]]:
        """(key, features (n, D), boxes (n, 4)) → the image with its caption."""
        options = options or SearchOptions()
        novelty = self.bundle.novelty
        generator = build_generator([self.model], self.vocabulary, options)
        stream = iter(images)
        while batch := list(islice(stream, batch_size)):
            net_input = pad_regions([features for _, features, _ in batch], [boxes for *_, boxes in batch])
            found = self._search(generator, net_input, options)
            candidates = [list(map(self._candidate, hypotheses)) for hypotheses in found]
            if attention is not None:
                tokens = [hypotheses[0]["tokens"].long().cpu() for hypotheses in found]
                looks = self._attend(net_input, tokens, [best.text for best, *_ in candidates], attention)
                for of_image, where in zip(candidates, looks, strict=True):
                    of_image[0] = dataclasses.replace(of_image[0], attention=where)
            for (key, features, _), (best, *others) in zip(batch, candidates, strict=True):
                distance = None if novelty is None else novelty.distance(features)
                yield Captioned(key, dataclasses.replace(best, others=others), distance)

    def _candidate(self, hypothesis: Mapping[str, Any]) -> Candidate:
        tokens = hypothesis["tokens"]
        text = self.vocabulary.decode(self.vocabulary.dictionary.string(tokens.int().cpu()))
        return Candidate(text, len(tokens) - 1, float(hypothesis["score"]))

    def _search(self, generator: SequenceGenerator, images: Mapping[str, Tensor], options: SearchOptions) -> Any:
        """The hypotheses of each of the padded *images* (see `pad_regions`), best first."""
        net_input: dict[str, Any] = {name: tensor.to(self.device) for name, tensor in images.items()}
        net_input["padded"] = bool(images["padding_mask"].any())
        with autocast(options.cpu_bf16):
            return generator.generate([], {"net_input": net_input})
