"""Pictures of images on a page: photos in it or beside it, and regions."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import urllib.parse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_formats import known_formats

if TYPE_CHECKING:
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.vision.photos import PhotoFile

THUMBNAIL = 320
"""Length of the longer side of a picture on the page, in pixels."""

_JPEG_QUALITY = 80
_LONGEST_NAME = 200  # file systems allow 255 bytes


@dataclass(frozen=True)
class Regions:
    """An image's regions on a page.

    Attributes:
        boxes: x1 y1 x2 y2 in 0..1 of each, as stored.
        labels: their classes; none: the store has none.
        scores: the detector's confidences, likewise.
    """

    boxes: Sequence[Sequence[float]]
    labels: Sequence[str] = ()
    scores: Sequence[float] = ()


@dataclass(frozen=True)
class Picture:
    """The picture of an image on the page.

    Attributes:
        width, height: in pixels on the page.
        source: the photo, as data URI or link; None if only the regions are drawn.
        regions: those to draw, or to show the attention to; None: none.
        proportions_known: False if width and height of the photo are not known, and a square is drawn.
    """

    width: int
    height: int
    source: str | None
    regions: Regions | None = None
    proportions_known: bool = True


@dataclass(frozen=True)
class PhotoPlace:
    """Where the photos of a page are.

    Attributes:
        size: length of the longer side of copies, in pixels.
        link_from: the page's folder, which links the photos themselves; None: the page has copies.
        copy_to: a folder that gets the copies.
        called: its name as the page links it; None: the copies are in the page.
    """

    size: int = THUMBNAIL
    link_from: Path | None = None
    copy_to: Path | None = None
    called: str | None = None

    @property
    def linked(self) -> bool:
        """Whether photos are beside the page."""
        return self.link_from is not None or self.called is not None


def picture(
    image_id: str,
    photo: PhotoFile | None,
    regions: RegionStore | None,
    *,
    place: PhotoPlace | None = None,
    overlay: bool = False,
) -> Picture:
    """The photo of an image or, if there is none, its regions; with *overlay*, both.

    Raises:
        DataError: there is neither, the photo cannot be read, or pillow is not installed.
    """
    place = place or PhotoPlace()
    if photo is not None:
        if overlay and regions is None:
            raise DataError(f"image {image_id}: its regions are to be drawn, but there is no region store")
        source, width, height = _photo(photo, image_id, place)
        return Picture(width, height, source, _regions(regions, image_id) if overlay and regions is not None else None)
    if regions is None:
        raise DataError(f"image {image_id}: neither a photo nor a region store to draw it from")
    size = regions.size(regions.image_index(image_id))
    width, height = scaled(*(size or (1, 1)), THUMBNAIL)
    return Picture(width, height, None, _regions(regions, image_id), proportions_known=size is not None)


def _regions(store: RegionStore, image_id: str) -> Regions:
    row = store.image_index(image_id)
    scores = store.scores(row)
    return Regions(store.boxes(row).tolist(), store.labels(row) or (), () if scores is None else scores.tolist())


def _photo(photo: PhotoFile, image_id: str, place: PhotoPlace) -> tuple[str, int, int]:
    """Source, width and height on the page of a photo."""
    if place.link_from is not None:
        path = Path(os.path.relpath(photo.path, place.link_from)).as_posix()
        return urllib.parse.quote(path), *scaled(*_upright_size(photo), THUMBNAIL)
    from xgpt_fairseq.vision.photos import PhotoError, PhotoForm, load_photo

    try:  # read as captioners read it: the page shows what they saw
        found = load_photo(photo, PhotoForm(place.size, stride=1, interpolation="lanczos"))
    except PhotoError as error:
        raise _unreadable(photo, error.reason) from None
    from PIL import Image

    jpeg = io.BytesIO()
    Image.fromarray(found.pixels).save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    shape = scaled(*found.size, max(place.size, THUMBNAIL))  # smaller copies are shown as large as others
    if place.copy_to is None or place.called is None:
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode(), *shape
    name = _file_name(image_id)
    (place.copy_to / name).write_bytes(jpeg.getvalue())
    return urllib.parse.quote(f"{place.called}/{name}"), *shape


def _file_name(image_id: str) -> str:
    """What the copy of an image's photo is called: its id, or, where that is too long for a name, the id's checksum."""
    name = urllib.parse.quote(image_id, safe="")  # nine letters for a Chinese one
    if len(name) > _LONGEST_NAME:
        name = hashlib.sha256(image_id.encode()).hexdigest()
    return f"{name}.jpg"


def _upright_size(photo: PhotoFile) -> tuple[int, int]:
    """Width and height of a photo as browsers show it. Only its header is read, not the pixels."""
    formats = known_formats()
    from PIL import ExifTags, Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(photo.content(), formats=formats) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation)  # of any type, where a tag is odd
            return (image.height, image.width) if turned in (5, 6, 7, 8) else image.size
    except DataError:
        raise
    except Exception as error:  # bytes that are damaged fail anywhere in Pillow
        raise _unreadable(photo, str(error)) from None


def _unreadable(photo: PhotoFile, reason: str) -> DataError:
    return DataError(f"{photo.path}: not a readable photo: {reason}")


def scaled(width: int, height: int, longest: int) -> tuple[int, int]:
    """*width* and *height* scaled so that the longer one is *longest*."""
    longer = max(width, height)
    return max(round(width * longest / longer), 1), max(round(height * longest / longer), 1)
