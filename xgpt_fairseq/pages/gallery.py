"""A page of captions: each image of a split with its photo or regions, references, generated captions, and scores.

The page is one self-contained HTML file, readable without network and scripts. Captions, names and labels are untrusted
text; the template escapes them all, and the page's content security policy allows no other script.
"""

from __future__ import annotations

import base64
import io
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.rendering import policy_hash, read_template, template
from xgpt_fairseq.regions.image_ids import NameIndex, is_number, is_photo_name
from xgpt_fairseq.vision.photo_formats import known_formats

if TYPE_CHECKING:
    from xgpt_fairseq.captions.references import References
    from xgpt_fairseq.metrics.scores import Scores
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.vision.photos import PhotoFile

THUMBNAIL = 320
"""Length of the longer side of a picture on the page, in pixels."""

ORDERS = ("split", "id", "best", "worst")
Order = Literal["split", "id", "best", "worst"]

_JPEG_QUALITY = 80

# Labels written on a picture, those of the most confident regions that leave each other this much room (the others
# appear when the pointer is on the box).
_LABELLED = 12
_LABEL_WIDTH, _LABEL_HEIGHT = 50, 13
_COLOURS = 7  # colours of boxes in gallery.css

_NOT_SHOWN = ("BLEU@1", "BLEU@2", "BLEU@3")  # per image; only BLEU@4 is shown


@dataclass(frozen=True)
class System:
    """A model's captions of all images of the split, image id → caption, and their scores."""

    name: str
    captions: Mapping[str, str]
    scores: Scores

    @property
    def main_metric(self) -> str:
        """The metric to sort images by: CIDEr, or the first metric if CIDEr was left out."""
        return "CIDEr" if "CIDEr" in self.scores.corpus else next(iter(self.scores.corpus))

    def main_score(self, image_id: str) -> float:
        return self.scores.per_image[image_id][self.main_metric]


@dataclass(frozen=True)
class Box:
    """A region on a picture, in the picture's pixels.

    Attributes:
        label: its class, if the store has labels.
        name: label and confidence, or the region's number.
        written: whether the label is written into the box.
        colour: 0 to `_COLOURS` - 1.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    name: str
    written: bool
    colour: int


@dataclass(frozen=True)
class Picture:
    """The picture of an image on the page.

    Attributes:
        width, height: in pixels on the page.
        source: the photo, as data URI or link; None if only the regions are drawn.
        boxes: the largest first, so that smaller ones are on top.
        proportions_known: False if width and height of the photo are not known, and a square is drawn.
    """

    width: int
    height: int
    source: str | None
    boxes: Sequence[Box] = ()
    proportions_known: bool = True

    @property
    def described(self) -> str:
        """A text alternative: the number of regions, and their labels."""
        labels = dict.fromkeys(box.label for box in self.boxes if box.label)
        return f"{len(self.boxes)} regions" + (f": {', '.join(labels)}" if labels else "")


@dataclass(frozen=True)
class Photos:
    """Photos of images: image id → file. A page in the folder *link_from* links them; without it, they are embedded."""

    files: Mapping[str, PhotoFile]
    link_from: Path | None = None


def match_photos(paths: Sequence[Path], image_ids: Sequence[str], *, link_from: Path | None = None) -> Photos:
    """Find the photos of *image_ids* in *paths*, folders, tars or tables, named as in `photo_files.find_photos`.

    Raises:
        DataError: a path is missing, there is no photo of the images, or more than one may be an image's; or a photo is
            to be linked and is in a tar or a table.
    """
    from xgpt_fairseq.vision.photo_files import find_photos

    for path in paths:
        try:
            path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    same_id: dict[str, list[PhotoFile]] = {}
    for photo in find_photos(paths):
        if is_photo_name(photo.path.name) or photo.cell is not None:
            same_id.setdefault(photo.image_id, []).append(photo)
    index = NameIndex((image_id, photos) for image_id, photos in same_id.items())
    files: dict[str, PhotoFile] = {}
    for image_id in image_ids:
        found = [photo for photos in index.find_id(image_id) for photo in photos]
        if len(found) > 1:
            raise DataError(f"{found[0].path} and {found[1].path} may both be the photo of image {image_id}")
        if found and link_from is not None and not found[0].is_file:
            where = "a tar" if found[0].cell is None else "a table"
            raise DataError(
                f"{found[0].path} is in {where}: leave --link-photos out, so that the page holds its photos"
            )
        if found:
            files[image_id] = found[0]
    if not files:
        raise DataError(
            f"{', '.join(map(str, paths))}: no photo of the {len(image_ids)} images, such as {image_ids[0]}.jpg"
        )
    return Photos(files, link_from)


def choose_images(
    references: References, systems: Sequence[System], order: Order = "split", limit: int | None = None
) -> list[str]:
    """The ids of the images to show: the first *limit* in *order*.

    "split" is the order of the references; "best" and "worst" are by the first system's main score.
    """
    chosen = references.image_ids
    if order == "id":
        chosen = sorted(chosen, key=_natural)
    elif order != "split":
        chosen = sorted(chosen, key=systems[0].main_score, reverse=order == "best")
    return chosen[:limit]


def _natural(image_id: str) -> tuple[bool, int, str]:
    """Sort key: numbers by value, before other names."""
    number = is_number(image_id)
    return not number, int(image_id) if number else 0, image_id


def render_gallery(
    references: References,
    systems: Sequence[System],
    image_ids: Sequence[str],
    *,
    title: str,
    photos: Photos | None = None,
    regions: RegionStore | None = None,
    overlay: bool = False,
) -> str:
    """Render the page as HTML.

    Args:
        references: the human captions of the split.
        systems: at least one, with different names.
        image_ids: the images to show, from `choose_images`.
        photos: images without a photo are drawn by their regions.
        regions: needed for images without a photo, and for *overlay*.
        overlay: also draw the regions over the photos, with a switch for all of them.

    Raises:
        DataError: a photo cannot be read, *regions* lacks an image, or jinja2 or pillow is not installed.
    """
    from tqdm import tqdm

    script = read_template("gallery.js")
    page = template("gallery.html", what="the gallery", script=script)  # fails before the slow pictures
    position = {image_id: number for number, image_id in enumerate(references.image_ids)}
    cards = []
    for image_id in tqdm(image_ids, desc="pictures", unit="image", disable=None):
        cards.append(
            {
                "id": image_id,
                "anchor": "image-" + urllib.parse.quote(image_id, safe="", errors="replace"),
                "position": position[image_id],
                "picture": picture(image_id, photos, regions, overlay=overlay),
                "people": references.captions[image_id],
                "systems": [_of_image(system, image_id) for system in systems],
                "best": max(system.main_score(image_id) for system in systems),
            }
        )
    metrics = list(systems[0].scores.corpus)
    return page.render(
        title=title,
        script_hash=policy_hash(script),
        linked=photos is not None and photos.link_from is not None,
        systems=systems,
        metrics=metrics,
        highest={metric: max(system.scores.corpus[metric] for system in systems) for metric in metrics},
        main_metric=systems[0].main_metric,
        images_in_split=len(position),
        cards=cards,
        switch=overlay and any(card["picture"].source for card in cards),
    )


def _of_image(system: System, image_id: str) -> dict[str, object]:
    values = system.scores.per_image[image_id]
    return {
        "name": system.name,
        "caption": system.captions[image_id],
        "main": system.main_score(image_id),
        "others": {name: value for name, value in values.items() if name not in (*_NOT_SHOWN, system.main_metric)},
    }


def picture_of_photo(photo: PhotoFile) -> Picture:
    """The photo, held by the page.

    Raises:
        DataError: it cannot be read, or pillow is not installed.
    """
    source, width, height = _photo(photo, None)
    return Picture(width, height, source)


def picture(image_id: str, photos: Photos | None, regions: RegionStore | None, *, overlay: bool) -> Picture:
    """The photo of an image or, if there is none, its regions."""
    photo = None if photos is None else photos.files.get(image_id)
    if photos is not None and photo is not None:
        source, width, height = _photo(photo, photos.link_from)
        boxes = _boxes(regions, image_id, width, height) if overlay else []
        return Picture(width, height, source, boxes)
    if regions is None:
        raise DataError(f"image {image_id}: neither a photo nor a region store to draw it from")
    size = regions.size(regions.image_index(image_id))
    width, height = _scaled(*(size or (1, 1)))
    return Picture(width, height, None, _boxes(regions, image_id, width, height), proportions_known=size is not None)


def _photo(photo: PhotoFile, link_from: Path | None) -> tuple[str, int, int]:
    """Source, width and height on the page of a photo."""
    formats = known_formats()
    from PIL import ExifTags, Image, ImageOps

    try:
        with Image.open(photo.content(), formats=formats) as image:
            if link_from is not None:
                # Only the header, not the pixels: browsers apply the EXIF orientation, and so do thumbnails.
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                width, height = reversed(image.size) if turned else image.size
                path = Path(os.path.relpath(photo.path, link_from)).as_posix()
                return urllib.parse.quote(path), *_scaled(width, height)
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright = upright.resize(_scaled(*upright.size), Image.Resampling.LANCZOS)
            jpeg = io.BytesIO()
            upright.save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{photo.path}: not a readable photo: {error}") from None
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode(), *upright.size


def _scaled(width: int, height: int) -> tuple[int, int]:
    """*width* and *height* scaled so that the longer one is `THUMBNAIL`."""
    longer = max(width, height)
    return max(round(width * THUMBNAIL / longer), 1), max(round(height * THUMBNAIL / longer), 1)


def _boxes(regions: RegionStore | None, image_id: str, width: int, height: int) -> list[Box]:
    if regions is None:
        raise DataError(f"image {image_id}: its regions are to be drawn, but there is no region store")
    row = regions.image_index(image_id)
    labels, scores = regions.labels(row), regions.scores(row)
    boxes: list[Box] = []
    for number, (x1, y1, x2, y2) in enumerate(regions.boxes(row).tolist()):
        x, y = round(x1 * width, 1), round(y1 * height, 1)
        written = [box for box in boxes if box.written]
        room = all(abs(box.x - x) > _LABEL_WIDTH or abs(box.y - y) > _LABEL_HEIGHT for box in written)
        label = labels[number] if labels is not None else ""
        name = label or f"region {number}"
        if scores is not None:
            name += f", {scores[number]:.2f}"
        boxes.append(
            Box(
                x=x,
                y=y,
                width=round((x2 - x1) * width, 1),
                height=round((y2 - y1) * height, 1),
                label=label,
                name=name,
                written=label != "" and room and len(written) < _LABELLED and x < width - _LABEL_WIDTH / 2,
                colour=number % _COLOURS,
            )
        )
    return sorted(boxes, key=lambda box: -box.width * box.height)
