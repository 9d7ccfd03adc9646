"""The captions of photos and of region stores, in their order, in groups that are the same after an interruption."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xgpt_fairseq.candidates import Candidate
    from xgpt_fairseq.hub_interface import XGPTHubInterface
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.search.generator import SearchOptions
    from xgpt_fairseq.vision.detections import Detections
    from xgpt_fairseq.vision.photos import Photo, PhotoError, PhotoFile
    from xgpt_fairseq.word_attention import Heads

LOADERS = 4  # threads that decode photos; more would only wait for the backbone


@dataclass(frozen=True)
class Result:
    """An image with its caption, or the reason why it has none.

    Attributes:
        image_id: of the image.
        best: the caption; None if the file can't be read.
        novelty: how far the image is from the captioner's training images, where that is known.
        reason: why it can't be read.
        photo: its file; None for an image of a store.
    """

    image_id: str
    best: Candidate | None = None
    novelty: float | None = None
    reason: str = ""
    photo: PhotoFile | None = None

    @property
    def name(self) -> str:
        """What the user calls it: the file, or the image id."""
        return self.image_id if self.photo is None else str(self.photo.path)

    @property
    def short_name(self) -> str:
        """Its name for a page that others see: no folders, but for those that tell photos of one name apart."""
        return self.image_id if self.photo is None else self.photo.name or self.photo.path.name

    @property
    def named(self) -> dict[str, Any]:
        """Its names, for JSON."""
        file = {} if self.photo is None else {"file": str(self.photo.path)}
        return {**file, "image_id": self.image_id}


def photo_group(batch_size: int) -> int:
    """Photos of a group: whole batches, and at least as many as the extractor gets at once."""
    from xgpt_fairseq.hub_interface import PHOTOS_AT_ONCE

    return -(-PHOTOS_AT_ONCE // batch_size) * batch_size


def photo_results(
    captioner: XGPTHubInterface,
    files: Sequence[PhotoFile],
    *,
    detections: Detections | None,
    options: SearchOptions,
    batch_size: int,
    attention: Heads | None = None,
) -> Iterator[list[Result]]:
    """The results of *files*, in groups of `photo_group`. Photos are read some groups ahead."""
    from xgpt_fairseq.vision.photos import PhotoError

    loaded = _load(captioner, files)
    while group := list(islice(loaded, photo_group(batch_size))):
        photos = [
            (file, photo, None if detections is None else detections.normalised(file.image_id, photo.size))
            for file, photo in group
            if not isinstance(photo, PhotoError)
        ]
        found = captioner.caption_loaded(photos, options=options, batch_size=batch_size, attention=attention)
        yield [
            Result(file.image_id, reason=photo.reason, photo=file)
            if isinstance(photo, PhotoError)
            else Result(file.image_id, (each := next(found)).best, each.novelty, photo=file)
            for file, photo in group
        ]


def store_results(
    captioner: XGPTHubInterface,
    store: RegionStore,
    rows: range,
    *,
    options: SearchOptions,
    batch_size: int,
    attention: Heads | None = None,
) -> Iterator[list[Result]]:
    """The results of the images *rows* of a region store, in groups of *batch_size*."""
    found = captioner.caption_store(store, options, batch_size, rows, attention)
    while group := list(islice(found, batch_size)):
        yield [Result(image_id, best, novelty) for image_id, best, novelty in group]


def _load(captioner: XGPTHubInterface, files: Sequence[PhotoFile]) -> Iterator[tuple[PhotoFile, Photo | PhotoError]]:
    """Read photos, some ahead of those that are captioned."""
    from xgpt_fairseq.hub_interface import PHOTOS_AT_ONCE
    from xgpt_fairseq.vision.photos import PhotoError

    def load(file: PhotoFile) -> Photo | PhotoError:
        try:
            return captioner.extractor.load(file)
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(LOADERS) as pool:
        rest = iter(files)
        waiting = deque((file, pool.submit(load, file)) for file in islice(rest, PHOTOS_AT_ONCE))
        while waiting:
            file, future = waiting.popleft()
            for following in islice(rest, 1):
                waiting.append((following, pool.submit(load, following)))
            yield file, future.result()
