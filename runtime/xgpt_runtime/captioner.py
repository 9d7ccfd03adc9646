"""A captioner: photos in, captions out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from xgpt_runtime.attention import Heads, WordAttention, mean_weights, word_attention
from xgpt_runtime.descriptions import read_description
from xgpt_runtime.errors import DataError
from xgpt_runtime.graphs import LOOK, PHOTO, REGIONS, STEP, Images, open_graph
from xgpt_runtime.novelty import FILE as NOVELTY
from xgpt_runtime.novelty import Novelty
from xgpt_runtime.photos import Photo, PhotoForm, load_photo
from xgpt_runtime.search import Hypothesis, SearchOptions, search
from xgpt_runtime.words import Words

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from PIL.Image import Image

Key = TypeVar("Key")
Array = npt.NDArray[Any]
Photos = Sequence["Path | str | bytes | Image"]

# The captioner in the package; `make runtime` in the checkout of xgpt_fairseq writes it.
RELEASED: Final = Path(__file__).parent / "captioner"

DESCRIPTION: Final = "captioner.json"
_FIELDS: Final = {
    "layers": int, "attention_heads": int, "hidden_size": int, "feature_dim": int, "max_target_positions": int,
    "photos": (dict, type(None)), "no_photos": str, "trained_on": str, "about": list,
}  # fmt: skip
_TOKENS: Final = "tokens"  # the name of the grid of the network's own cells
_WHOLE: Final = (0.0, 0.0, 1.0, 1.0)  # region 0: the whole photo


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of the captions that a search finds for a photo.

    Attributes:
        text: the detokenized caption.
        tokens: its length in generated subwords, without the end of sentence.
        score: its log-probability, the end of sentence included, divided by that length to the power of
            `SearchOptions.lenpen`, so per token where that is 1. The natural logarithm.
        attention: where the captioner looks for each word, where that was asked for.
    """

    text: str
    tokens: int
    score: float
    attention: WordAttention | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Captioned(Generic[Key]):  # Python 3.10 has no NamedTuple of a type
    """A photo with its caption.

    Attributes:
        key: what the caller named it.
        best: its best caption.
        novelty: its distance from the model's training photos, in units of their median; None if that is not known.
    """

    key: Key
    best: Candidate
    novelty: float | None


class Regions(NamedTuple):
    """The regions of a photo: features (n, D) float16, and boxes (n, 4) x1 y1 x2 y2 in 0..1."""

    features: Array
    boxes: Array


class Captioner:
    """A captioner in a folder that `xgpt-export --onnx` wrote.

    Args:
        folder: the folder; None: the captioner in the package (`RELEASED`).

    Attributes:
        folder: the folder.
        about: what it is, in lines, and its model card.
        novelty: tells photos unlike its training photos; None if that is not known.

    Raises:
        DataError: the folder is none of a captioner, is damaged or of a newer version.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        if folder is None and not (RELEASED / DESCRIPTION).is_file():
            raise DataError(
                "no captioner comes with this build of xgpt-runtime: name a folder of `xgpt-export … --onnx`; or `make "
                "runtime` in a checkout of xgpt_fairseq builds one that has the released captioner with it"
            )
        self.folder = RELEASED if folder is None else Path(folder)
        self._settings = read_description(self.folder / DESCRIPTION, _FIELDS)
        self._words = Words(self.folder)
        photos = self._settings["photos"]
        try:
            self._grid: Any = None if photos is None else photos["grid"]
            self._form = None if photos is None else PhotoForm(**{n: v for n, v in photos.items() if n != "grid"})
        except (KeyError, TypeError) as error:  # a field that is missing, or that PhotoForm has not
            raise DataError(f"{self.folder / DESCRIPTION} is damaged: photos: {error}") from None
        self._photo = None if photos is None else open_graph(self.folder / PHOTO)
        self._regions = open_graph(self.folder / REGIONS)
        self._step = open_graph(self.folder / STEP)
        self.novelty = Novelty(self.folder / NOVELTY) if (self.folder / NOVELTY).is_file() else None

    @property
    def about(self) -> str:
        """What it is, in lines, and its model card."""
        card = (self.folder / "README.md").read_text(encoding="utf-8").strip()
        return "\n".join([*self._settings["about"], "", card])

    def sha256(self) -> str:
        """The checksum of its files, but for the model card and licences."""
        digest = hashlib.sha256()
        for name in sorted(
            file.name for file in self.folder.iterdir() if file.suffix in (".json", ".npz", ".onnx", ".bin")
        ):
            digest.update(name.encode() + hashlib.sha256((self.folder / name).read_bytes()).digest())
        return digest.hexdigest()

    @property
    def needs_boxes(self) -> bool:
        """Whether photos need boxes of a detector."""
        return self._photo is not None and self._grid is None

    def load(self, photo: Path | str | bytes | Image) -> Photo:
        """A photo as the network takes it: of a file, of its bytes, or of an image of Pillow.

        Raises:
            PhotoError: a file cannot be read as a photo.
            DataError: the captioner takes no photos, or *photo* is none of these.
        """
        if self._form is None:
            raise DataError(f"{self.folder} captions only regions that are given: {self._settings['no_photos']}")
        return load_photo(Path(photo) if isinstance(photo, str | PathLike) else photo, self._form)

    def regions(self, photo: Photo, boxes: Array | None = None) -> Regions:
        """The regions of a photo from `load`.

        Args:
            photo: the photo.
            boxes: (n, 4) x1 y1 x2 y2 in 0..1 of a detector, where `needs_boxes`.

        Raises:
            DataError: boxes are given and not needed, or needed and not given.
        """
        if self._photo is None or self._form is None:
            raise DataError(f"{self.folder} captions only regions that are given: {self._settings['no_photos']}")
        if self.needs_boxes != (boxes is not None):
            raise DataError(
                "the model was trained on boxes of a detector: give those of each photo"
                if self.needs_boxes
                else "boxes are given to a captioner that takes the cells of a grid"
            )
        height, width, _ = photo.pixels.shape
        if boxes is None:
            own = (width // self._form.stride, height // self._form.stride)
            boxes = _cells(*own) if self._grid == _TOKENS else _cells(self._grid, self._grid)
        corners = np.concatenate([np.array([_WHOLE]), boxes]).astype(np.float32)
        inputs: dict[str, Array] = {"pixels": photo.pixels[None]}
        if self._grid != _TOKENS:
            inputs["boxes"] = corners[None]
        [[features]] = self._photo.run(["features"], inputs)
        return Regions(features, corners)

    @overload
    def caption(
        self,
        photos: Photos | Path | str | bytes | Image,
        *,
        beam: int | None = ...,
        return_scores: Literal[False] = ...,
        return_attention: Literal[False] = ...,
        boxes: Sequence[Array] | None = ...,
        options: SearchOptions | None = ...,
        batch_size: int = ...,
        heads: Heads | None = ...,
    ) -> list[str]: ...

    @overload
    def caption(
        self,
        photos: Photos | Path | str | bytes | Image,
        *,
        beam: int | None = ...,
        return_scores: Literal[True],
        return_attention: bool = ...,
        boxes: Sequence[Array] | None = ...,
        options: SearchOptions | None = ...,
        batch_size: int = ...,
        heads: Heads | None = ...,
    ) -> list[Candidate]: ...

    @overload
    def caption(
        self,
        photos: Photos | Path | str | bytes | Image,
        *,
        beam: int | None = ...,
        return_scores: bool = ...,
        return_attention: Literal[True],
        boxes: Sequence[Array] | None = ...,
        options: SearchOptions | None = ...,
        batch_size: int = ...,
        heads: Heads | None = ...,
    ) -> list[Candidate]: ...

    def caption(
        self,
        photos: Photos | Path | str | bytes | Image,
        *,
        beam: int | None = None,
        return_scores: bool = False,
        return_attention: bool = False,
        boxes: Sequence[Array] | None = None,
        options: SearchOptions | None = None,
        batch_size: int = 32,
        heads: Heads | None = None,
    ) -> list[str] | list[Candidate]:
        """Caption photos.

        Args:
            photos: files, their bytes, or images of Pillow; one or several.
            beam: beam size; None: that of *options*.
            return_scores: also return what the captions' scores are.
            return_attention: also return where the captioner looks for each word (`WordAttention`).
            boxes: of each photo (n, 4) x1 y1 x2 y2 in 0..1, where `needs_boxes`.
            options: options of the search.
            batch_size: photos per batch of the search.
            heads: whose attention; None: the mean of all layers and heads.

        Returns:
            list: one caption per photo: its text, or with *return_scores* or *return_attention* a `Candidate`.

        Raises:
            PhotoError: a file cannot be read as a photo.
            DataError: see `load`, `regions`, `caption_loaded` and `search.search`.
        """
        options = options or SearchOptions()
        if beam is not None:
            options = dataclasses.replace(options, beam=beam)
        several: Photos = photos if isinstance(photos, Sequence) and not isinstance(photos, str | bytes) else [photos]
        given = boxes if boxes is not None else [None] * len(several)
        loaded = ((None, self.load(photo), corners) for photo, corners in zip(several, given, strict=True))
        looks = (heads or Heads()) if return_attention else None
        captioned = self.caption_loaded(loaded, options=options, batch_size=batch_size, attention=looks)
        found = [each.best for each in captioned]
        return found if return_scores or return_attention else [best.text for best in found]

    def caption_loaded(
        self,
        photos: Iterable[tuple[Key, Photo, Array | None]],
        *,
        options: SearchOptions | None = None,
        batch_size: int = 32,
        attention: Heads | None = None,
    ) -> Iterator[Captioned[Key]]:
        """Caption photos as they come.

        Args:
            photos: for each its key, the photo from `load`, and its boxes or None.
            attention: whose attention the captions come with; None: they come without, at no cost.

        Yields:
            Captioned: each photo with its caption, in order.

        Raises:
            DataError: *attention* names no layer or head of the model, or the folder has no graph of it.
        """
        options = options or SearchOptions()
        stream = iter(photos)
        while batch := [(key, self.regions(photo, boxes)) for key, photo, boxes in islice(stream, batch_size)]:
            found = self.candidates([regions for _, regions in batch], options, attention)
            for (key, regions), candidates in zip(batch, found, strict=True):
                distance = None if self.novelty is None else self.novelty.distance(regions.features)
                yield Captioned(key, candidates[0], distance)

    def candidates(
        self, images: Sequence[Regions], options: SearchOptions | None = None, attention: Heads | None = None
    ) -> list[list[Candidate]]:
        """All captions that one search finds for images by their regions, from `regions` or elsewhere, best first.

        *attention*: whose attention the best of them come with; None: without.

        Raises:
            DataError: features have another width than the model's; or an option is invalid.
        """
        width = self._settings["feature_dim"]
        for image in images:
            if image.features.ndim != 2 or image.features.shape[1] != width or not len(image.features):
                shape = " x ".join(map(str, image.features.shape))
                raise DataError(
                    f"features of shape {shape}; the model takes n x {width} ({self._settings['trained_on']})"
                )
        if attention is not None:
            attention.check(layers=self._settings["layers"], heads=self._settings["attention_heads"])
        if not images:
            return []
        features, boxes = [image.features for image in images], [image.boxes for image in images]
        decoder = Images(self._regions, self._step, features, boxes, self._settings)
        found = search(
            decoder,
            len(images),
            symbols=len(self._words.symbols),
            eos=self._words.eos,
            max_positions=self._settings["max_target_positions"],
            options=options or SearchOptions(),
        )
        candidates = [list(map(self._candidate, hypotheses)) for hypotheses in found]
        if attention is not None:
            best = [hypotheses[0].tokens for hypotheses in found]
            weights = mean_weights(decoder.look(self._look, best, self._words.eos), attention)  # (I, T, N)
            for of_image, tokens, rows, image in zip(candidates, best, weights, images, strict=True):
                pieces = [self._words.symbols[token] for token in tokens]
                real = rows[:, : len(image.boxes)]
                where = word_attention(pieces, of_image[0].text, real, image.boxes, moses=self._words.moses)
                of_image[0] = dataclasses.replace(of_image[0], attention=where)
        return candidates

    @functools.cached_property
    def _look(self) -> InferenceSession:
        file = self.folder / LOOK
        if not file.is_file():
            raise DataError(f"{self.folder} was exported without {LOOK}, which attention needs: export it again")
        return open_graph(file)

    def _candidate(self, found: Hypothesis) -> Candidate:
        return Candidate(self._words.text(found.tokens), len(found.tokens), found.score)


def _cells(columns: int, rows: int) -> Array:
    """The cells of a grid over a photo, row by row: (columns * rows, 4)."""
    x_edges, y_edges = np.linspace(0.0, 1.0, columns + 1), np.linspace(0.0, 1.0, rows + 1)
    y, x = np.divmod(np.arange(columns * rows), columns)
    return np.stack([x_edges[x], y_edges[y], x_edges[x + 1], y_edges[y + 1]], axis=1).astype(np.float32)
