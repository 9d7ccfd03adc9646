"""A page of a split's images, each with its photo or regions, people's captions, generated captions, and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.page import Card, Credit, Metric, PageHead, Said, SystemHead, render_page
from xgpt_fairseq.pages.pictures import PhotoPlace, picture
from xgpt_fairseq.pages.rendering import template
from xgpt_fairseq.regions.image_ids import NameIndex, is_number, is_photo_name

if TYPE_CHECKING:
    from xgpt_fairseq.captions.references import References
    from xgpt_fairseq.metrics.cider import NgramValue
    from xgpt_fairseq.metrics.scores import Scores
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.vision.photos import PhotoFile
    from xgpt_fairseq.word_attention import WordAttention

ORDERS = ("split", "id", "best", "worst")
Order = Literal["split", "id", "best", "worst"]

_NOT_SHOWN = ("BLEU@1", "BLEU@2", "BLEU@3")  # per image, beside others: BLEU@4 says what they say


@dataclass(frozen=True)
class System:
    """A model's captions of all images of the split, image id → caption, and their scores.

    Attributes:
        attention: image id → where the model looks, of the images that are shown, or of none.
        ngrams: image id → what CIDEr rewards and costs, likewise.
    """

    name: str
    captions: Mapping[str, str]
    scores: Scores
    attention: Mapping[str, WordAttention] = field(default_factory=dict)
    ngrams: Mapping[str, Sequence[NgramValue]] = field(default_factory=dict)

    @property
    def main_metric(self) -> str:
        """The metric to sort images by: CIDEr, or the first one that images show if CIDEr was left out."""
        shown = _shown(self.scores.corpus)
        return "CIDEr" if "CIDEr" in shown else shown[0]

    def main_score(self, image_id: str) -> float:
        return self.scores.per_image[image_id][self.main_metric]


def _shown(metrics: Iterable[str]) -> list[str]:
    """Those of *metrics*, at least one, that each image shows."""
    names = list(metrics)
    return [name for name in names if name not in _NOT_SHOWN] or names


@dataclass(frozen=True)
class Photos:
    """Photos of images: image id → file, and where the page has them."""

    files: Mapping[str, PhotoFile]
    place: PhotoPlace = field(default_factory=PhotoPlace)


def match_photos(
    paths: Sequence[Path],
    image_ids: Sequence[str],
    *,
    link_from: Path | None = None,
    place: PhotoPlace | None = None,
) -> Photos:
    """Find the photos of *image_ids* in *paths*, folders, tars or tables, named as in `photo_files.find_photos`.

    A page in the folder *link_from* links them; *place* says where else they may be; by default the page has copies.

    Raises:
        DataError: a path is missing, there is no photo of the images, or more than one may be an image's; or a photo is
            to be linked and is in a tar or a table.
    """
    from xgpt_fairseq.vision.photo_files import find_photos

    place = place or PhotoPlace(link_from=link_from)
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
        if found and place.link_from is not None and not found[0].is_file:
            where = "a tar" if found[0].cell is None else "a table"
            raise DataError(
                f"{found[0].path} is in {where}: leave --link-photos out, so that the page has copies of its photos"
            )
        if found:
            files[image_id] = found[0]
    if not files:
        raise DataError(
            f"{', '.join(map(str, paths))}: no photo of the {len(image_ids)} images, such as {image_ids[0]}.jpg"
        )
    return Photos(files, place)


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
    credits: Mapping[str, Credit] | None = None,
    note: str = "",
) -> str:
    """Render the page as HTML.

    Args:
        references: the human captions of the split.
        systems: at least one, with different names.
        image_ids: the images to show, from `choose_images`.
        photos: images without a photo are drawn by their regions.
        regions: needed for images without a photo, for *overlay*, and where systems have attention. Where it has
            labels, objects that captions miss are listed.
        overlay: also draw the regions over the photos, with a switch for all of them.
        credits: image id → licence and origin of its photo.
        note: a line below the heading.

    Raises:
        DataError: a photo cannot be read, *regions* lacks an image, or jinja2 or pillow is not installed.
    """
    from tqdm import tqdm

    from xgpt_fairseq.metrics.caption_errors import summary

    template("page.html", what="the gallery")  # fails before the slow pictures
    attention = any(system.attention for system in systems)
    position = {image_id: number for number, image_id in enumerate(references.image_ids)}
    people = list(references.captions.values())
    cards = []
    for image_id in tqdm(image_ids, desc="pictures", unit="image", disable=None):
        photo = None if photos is None else photos.files.get(image_id)
        drawn = picture(
            image_id, photo, regions, place=None if photos is None else photos.place, overlay=overlay or attention
        )
        labels = () if regions is None else regions.labels(regions.image_index(image_id)) or ()
        theirs = references.captions[image_id]
        said = [_said(system, image_id, theirs, labels) for system in systems]
        credit = (credits or {}).get(image_id)
        cards.append(Card(image_id, position[image_id], image_id, drawn, said, theirs, credit=credit))
    main = systems[0].main_metric
    names = dict.fromkeys([main, *(name for each in systems for name in each.scores.corpus)])
    heads = [
        SystemHead(each.name, each.scores.corpus, summary([each.captions[i] for i in references.captions], people))
        for each in systems
    ]
    images = len(position)
    head = PageHead(
        title,
        heads,
        [Metric(name) for name in names],
        images=images,
        counted=f"Scores × 100 of {'all ' if images != 1 else ''}{images} image{'s' if images != 1 else ''}",
        note=note,
        linked=photos is not None and photos.place.linked,
        overlay=overlay and any(card.picture.source for card in cards),
    )
    return "".join(render_page(head, cards, what="the gallery"))


def _said(system: System, image_id: str, people: Sequence[str], labels: Sequence[str]) -> Said:
    from xgpt_fairseq.metrics.caption_errors import missed_objects, repeated_phrases, unused_words, word_spans

    text, scores = system.captions[image_id], system.scores.per_image[image_id]
    return Said(
        text,
        {name: scores[name] for name in _shown(scores)},
        word_spans(text),
        unused=unused_words(text, people),
        repeated=repeated_phrases(text),
        missed=missed_objects(text, labels, people),
        ngrams=system.ngrams.get(image_id, ()),
        attention=system.attention.get(image_id),
    )
