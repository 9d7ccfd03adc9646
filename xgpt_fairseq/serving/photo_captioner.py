"""The bytes of a photo → its captions, as JSON, for many threads."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.pages.page import Utf16
from xgpt_fairseq.search.generator import SearchOptions, build_generator
from xgpt_fairseq.serving.limits import MAX_PIXELS
from xgpt_fairseq.vision.photos import LargePhotoError, NoPhotoError, Photo, PhotoError, PhotoFile, UnfitPhotoError
from xgpt_fairseq.word_attention import Heads

# Seconds after which `PhotoCaptioner.run` looks for signals while it waits for photos.
_SIGNALS_WAIT = 0.5


class RequestError(Exception):
    """A request is refused.

    Attributes:
        status: of the answer.
        message: for the person who sent the photo: one line, without names of files.
        headers: of the answer, besides those that all have.
    """

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class PhotoCaptioner:
    """Captions photos: many threads call `caption`, and the model runs in the one that calls `run`.

    That is the main thread. A process that ends while another one holds what torch keeps for each thread may abort.

    Args:
        captioner: the model.
        options: of the search; each photo has a beam of its own.

    Raises:
        DataError: the model does not caption photos by themselves, or *options* cannot be used here.
    """

    def __init__(self, captioner: XGPTHubInterface, options: SearchOptions) -> None:
        if captioner.extractor.needs_boxes:
            raise DataError(
                "the model was trained on the boxes of a detector, which photos on a page do not have: caption files, "
                "with --detections results.json"
            )
        build_generator([captioner.model], captioner.vocabulary, options)  # refuses what this machine cannot do
        self._captioner = captioner
        self._options = options
        self._decoding = threading.Lock()  # one at a time: a photo of 50 megapixels takes hundreds of megabytes
        self._waiting: SimpleQueue[tuple[Photo, int, Future[dict[str, Any]]] | None] = SimpleQueue()
        self._ended = False

    def caption(self, content: bytes, beam: int) -> dict[str, Any]:
        """Caption a photo.

        Args:
            content: the bytes of its file.
            beam: beam size.

        Returns:
            dict: `caption`; `unlike`, whether the photo looks unlike the training images; `hypotheses`, all captions of
            the search, best first, each with `text` and `score` (see `Candidate`); `regions`, [x1, y1, x2, y2] in 0..1
            of width and height; `words` of the caption, the start and the end of each, as JavaScript counts characters;
            `attention`, for each of them the weights of the regions; `width` and `height` of the upright photo in
            pixels.

        Raises:
            RequestError: it is no photo, is damaged, has too many pixels, or a shape that the network does not take.
        """
        with self._decoding:
            photo = self._load(content)
        found: Future[dict[str, Any]] = Future()
        self._waiting.put((photo, beam, found))
        return found.result()

    def run(self) -> None:
        """Caption what waits, until `end`."""
        while not self._ended:
            # A signal that comes just before the wait begins does not end it: its handler runs when the wait is over.
            try:
                next_one = self._waiting.get(timeout=_SIGNALS_WAIT)
            except Empty:
                continue
            if next_one is None:
                return
            photo, beam, found = next_one
            try:
                found.set_result(self._search(photo, beam))
            except Exception as error:
                found.set_exception(error)  # for the thread that waits

    def end(self) -> None:
        """Let `run` return after the photo that it captions now. A signal handler may call this."""
        self._ended = True
        self._waiting.put(None)

    def _search(self, photo: Photo, beam: int) -> dict[str, Any]:
        options = dataclasses.replace(self._options, beam=beam)
        loaded = [(None, photo, None)]
        [(_, best, distance)] = self._captioner.caption_loaded(loaded, options=options, attention=Heads())
        novelty, looks = self._captioner.bundle.novelty, best.attention
        assert looks is not None
        width, height = photo.size
        return {
            "caption": best.text,
            "unlike": novelty is not None and distance is not None and distance > novelty.limit,
            "hypotheses": [{"text": each.text, "score": each.score} for each in (best, *best.others)],
            "regions": looks.boxes.tolist(),
            "words": Utf16(best.text).spans([(word.start, word.end) for word in looks.words]),
            "attention": [[round(weight, 6) for weight in of_word] for of_word in looks.weights.tolist()],
            "width": width,
            "height": height,
        }

    def _load(self, content: bytes) -> Photo:
        try:
            return self._captioner.extractor.load(PhotoFile(Path("photo"), data=content), max_pixels=MAX_PIXELS)
        except NoPhotoError as error:
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, error.reason) from error
        except LargePhotoError as error:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error.reason) from error
        except UnfitPhotoError as error:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason) from error
        except PhotoError as error:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, f"damaged: {error.reason}") from error
