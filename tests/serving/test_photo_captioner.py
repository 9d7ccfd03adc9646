"""Captions of the bytes of photos, against those of their files."""

from __future__ import annotations

import io
import signal
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_hub_interface import build, photos  # noqa: F401  (a fixture)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.regions.novelty import NoveltyDetector
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.serving.photo_captioner import PhotoCaptioner, RequestError


@pytest.fixture(scope="module")
def captioner(tiny_vocabulary: Path) -> XGPTHubInterface:
    return build(tiny_vocabulary)


@contextmanager
def running(captioner: XGPTHubInterface, options: SearchOptions) -> Iterator[PhotoCaptioner]:
    service = PhotoCaptioner(captioner, options)
    thread = threading.Thread(target=service.run)
    thread.start()
    yield service
    service.end()
    thread.join()


@pytest.fixture
def service(captioner: XGPTHubInterface) -> Iterator[PhotoCaptioner]:
    with running(captioner, SearchOptions(max_len_b=20)) as service:
        yield service


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG in RGB."""
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size)) + b"\0\0\0\0IDAT"


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_an_answer(
    captioner: XGPTHubInterface,
    service: PhotoCaptioner,
    photos: list[Path],  # noqa: F811
    beam: int,
) -> None:
    [*expected] = captioner.caption(photos, options=SearchOptions(beam=beam, max_len_b=20))
    assert len(set(expected)) > 3
    for photo, caption in zip(photos, expected, strict=True):
        answer = service.caption(photo.read_bytes(), beam)
        assert answer["caption"] == answer["hypotheses"][0]["text"] == caption
        scores = [each["score"] for each in answer["hypotheses"]]
        assert len(scores) == beam and scores == sorted(scores, reverse=True) and scores[0] < 0
        [regions] = captioner.extractor.extract([captioner.extractor.load(photo)])
        assert answer["regions"] == regions.boxes.tolist() and len(answer["regions"]) == 5
        starts, ends = answer["words"][::2], answer["words"][1::2]
        assert "".join(caption[a:b] for a, b in zip(starts, ends, strict=True)) == caption.replace(" ", "")
        assert [sum(weights) for weights in answer["attention"]] == pytest.approx([1] * len(starts), abs=1e-4)
        columns = 3 + photos.index(photo) % 3
        assert (answer["width"], answer["height"]) == (24 * columns, 96)


@pytest.mark.parametrize(("limit", "unlike"), [(0.99, True), (1.01, False)])
def test_a_photo_unlike_the_training_images(
    tiny_vocabulary: Path,
    photos: list[Path],  # noqa: F811
    limit: float,
    unlike: bool,
) -> None:
    captioner = build(tiny_vocabulary)
    [regions] = captioner.extractor.extract([captioner.extractor.load(photos[0])])
    mean = regions.features.mean(axis=0, dtype=np.float32)
    captioner.bundle.novelty = NoveltyDetector(
        0 * mean, np.zeros((1, len(mean)), np.float32), float(np.linalg.norm(mean)), limit, group_limit=1.0
    )
    with running(captioner, SearchOptions(max_len_b=20)) as service:
        assert service.caption(photos[0].read_bytes(), 1)["unlike"] is unlike


def test_the_search_s_options_hold(captioner: XGPTHubInterface, photos: list[Path]) -> None:  # noqa: F811
    options = SearchOptions(beam=4, max_len_b=3, lenpen=2.0)
    with running(captioner, options) as service:
        answers = [service.caption(photo.read_bytes(), 3) for photo in photos]
    for photo, answer in zip(photos, answers, strict=True):
        [regions] = captioner.extractor.extract([captioner.extractor.load(photo)])
        [found] = captioner.candidates_of_regions([regions], SearchOptions(beam=3, max_len_b=3, lenpen=2.0))
        assert answer["hypotheses"] == [{"text": each.text, "score": each.score} for each in found]


def test_width_and_height_are_those_of_the_upright_photo(service: PhotoCaptioner) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (90, 30), (200, 30, 10)).save(file, "JPEG", exif=exif)
    answer = service.caption(file.getvalue(), 1)
    assert (answer["width"], answer["height"]) == (30, 90)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 415, "the file is empty"),
        (b"bread, milk", 415, "not a photo, or damaged at its beginning; JPEG, PNG, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not a photo, or damaged at its beginning; "),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", 415, "not a photo, or damaged "),
        (png_header(100, 100), 422, "damaged: "),
        (png_header(10_000, 10_000), 413, "the photo has 10000 x 10000 pixels; at most 50 megapixels are read"),
        (png_header(50_000_001, 1), 413, "the photo has 50000001 x 1 pixels; at most 50 megapixels are read"),
        (png_header(100_000, 100_000), 413, "the photo has more than 50 megapixels"),
    ],
)
def test_what_is_refused(service: PhotoCaptioner, content: bytes, status: int, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        service.caption(content, 2)
    assert refused.value.status == status
    assert refused.value.message.startswith(message)
    assert "\n" not in refused.value.message and "/" not in refused.value.message


def test_a_photo_that_the_network_does_not_take(
    service: PhotoCaptioner,
    captioner: XGPTHubInterface,
    photos: list[Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captioner.extractor, "why_unfit", lambda photo: "no such photos" * (photo.size == (72, 96)))
    with pytest.raises(RequestError, match=r"^no such photos$") as refused:
        service.caption(photos[0].read_bytes(), 2)
    assert refused.value.status == 422
    assert service.caption(photos[1].read_bytes(), 2)["width"] == 96


def test_whole_photos_of_100_megapixels_are_not_decoded(service: PhotoCaptioner) -> None:
    from PIL import Image, ImageFile

    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", None)
        with pytest.raises(RequestError, match="10000 x 10000 pixels"):
            service.caption(file.getvalue(), 2)


def test_the_model_runs_in_one_thread(
    captioner: XGPTHubInterface,
    service: PhotoCaptioner,
    photos: list[Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also after it has failed; who asked for that photo hears of it."""
    search, threads, expected = captioner.caption_loaded, set(), captioner.caption(photos)

    def watched(*arguments: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return search(*arguments, **options)

    monkeypatch.setattr(captioner, "caption_loaded", None)
    with pytest.raises(TypeError):
        service.caption(photos[0].read_bytes(), 2)
    monkeypatch.setattr(captioner, "caption_loaded", watched)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda photo: service.caption(photo.read_bytes(), 2)["caption"], photos))
    assert found == expected
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_the_end_does_not_wait_for_the_photos_behind(
    captioner: XGPTHubInterface,
    photos: list[Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search, begun, go, done = captioner.caption_loaded, threading.Event(), threading.Event(), []

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(10)
        done.append(list(search(*arguments, **options)))
        return done[-1]

    monkeypatch.setattr(captioner, "caption_loaded", slow)
    service, answers = PhotoCaptioner(captioner, SearchOptions()), []
    content = photos[0].read_bytes()
    for _ in range(3):
        threading.Thread(target=lambda: answers.append(service.caption(content, 2)), daemon=True).start()
    thread = threading.Thread(target=service.run)
    thread.start()
    assert begun.wait(10)
    service.end()
    go.set()
    thread.join(10)
    assert not thread.is_alive() and len(done) == 1


def test_models_that_need_more_than_a_photo(tiny_vocabulary: Path) -> None:
    with pytest.raises(DataError, match="trained on the boxes of a detector, which photos on a page do not have"):
        PhotoCaptioner(build(tiny_vocabulary, grid=None), SearchOptions())
    with pytest.raises(DataError, match="which cannot be made from photos here"):
        PhotoCaptioner(build(tiny_vocabulary, extractor=False), SearchOptions())


def test_a_signal_that_does_not_interrupt_the_wait_ends_it(captioner: XGPTHubInterface) -> None:
    """As one that comes just before the wait begins: Python runs its handler only when the wait is over."""
    service = PhotoCaptioner(captioner, SearchOptions())
    before = signal.signal(signal.SIGUSR1, lambda *_: service.end())
    rescue = threading.Timer(20, service.end)
    rescue.start()
    try:
        # to the thread that sends it, so that this one is not interrupted
        sender = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
        sender.start()
        began = time.monotonic()
        service.run()
        assert time.monotonic() - began < 15
    finally:
        rescue.cancel()
        signal.signal(signal.SIGUSR1, before)
