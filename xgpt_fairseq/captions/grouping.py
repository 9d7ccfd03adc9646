"""Captions of one image that stand apart in their source are put together."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from xgpt_fairseq.captions.base import Caption, CaptionedImage, ReadingLog
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id


def grouped(
    read: Callable[[], Iterator[tuple[str, CaptionedImage]]], log: ReadingLog | None = None
) -> Iterator[CaptionedImage]:
    """The images of a source whose records each have some captions of an image, each image once.

    Where all records of an image follow each other, as is usual, they are streamed; only images whose records stand
    apart are held until the end. Captions are numbered anew.

    Args:
        read: reads the source from its beginning: (where the record is, for messages; the image). It is called twice.
        log: where *read* counts; what it counts the first time is forgotten.

    Raises:
        DataError: records of one image say different splits, or different files.
    """
    before = None if log is None else (log.counts.copy(), log.bad.copy())
    apart = _hashes_of_several_runs(read)
    if log is not None and before is not None:
        log.counts, log.bad = before
    held: dict[str, CaptionedImage] = {}
    last: CaptionedImage | None = None
    for where, image in read():
        if hash(image.image_id) in apart:
            known = held.setdefault(image.image_id, _without_captions(image))
        elif last is not None and last.image_id == image.image_id:
            known = last
        else:
            if last is not None:
                yield last
            known = last = _without_captions(image)
        if known.split != image.split:
            raise DataError(
                f"{where}: image {image.image_id} is of split {image.split!r}, before of {known.split!r}; these must "
                "agree"
            )
        if known.file_name != image.file_name and not _same_file(known.file_name, image.file_name):
            raise DataError(
                f"{where}: image {image.image_id} is {image.file_name}, before {known.file_name}; an image has one "
                "file (--columns image=NAME chooses the column that names photos)"
            )
        for caption in image.captions:
            known.captions.append(Caption(len(known.captions), caption.text))
    if last is not None:
        yield last
    yield from held.values()


def _same_file(one: str | None, other: str | None) -> bool:
    """Whether two names may be those of one file, `a/1.jpg` and `a\\1.JPG`, or `a/1`; no name fits any."""
    if one is None or other is None:
        return True
    extensions = {PurePosixPath(name).suffix.lower() for name in (one, other)} - {""}
    return canonical_image_id(one) == canonical_image_id(other) and len(extensions) < 2


def _without_captions(image: CaptionedImage) -> CaptionedImage:
    return CaptionedImage(image.image_id, image.split, [], image.file_name)


def _hashes_of_several_runs(read: Callable[[], Iterator[tuple[str, CaptionedImage]]]) -> set[int]:
    """`hash` of the ids of images whose records stand apart. A chance equal hash among them does no harm."""
    import numpy as np

    hashes = array("q")
    last = None
    for _, image in read():
        if image.image_id != last:
            hashes.append(hash(image.image_id))
            last = image.image_id
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    return set(values[counts > 1].tolist())
