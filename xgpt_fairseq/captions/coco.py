"""coco: COCO's caption JSON, which is also the format of a split's references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    caption_text,
    file_named,
    image_listed_twice,
    record_image_id,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id


def recognise(file: CaptionFile) -> bool:
    """Whether its first annotation has a caption."""
    value = file.json_object
    images, annotations = value.get("images"), value.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list) or not annotations:
        return False
    return isinstance(annotations[0], dict) and {"image_id", "caption"} <= annotations[0].keys()


class Annotation(NamedTuple):
    """A caption in COCO's format: its place in `annotations`, its `id` if it has one, its text."""

    place: int
    caption_id: Any
    text: str


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """COCO's `captions_train2014.json` and the like. The file says no split."""
    parsed = parse_coco(file.path, file.json)
    images = {canonical_image_id(image["id"]): image for image in file.json["images"]}
    for image_id, of_image in parsed.items():
        kept = [annotation for annotation in of_image if not _is_withdrawn(file.json["annotations"][annotation.place])]
        if len(kept) < len(of_image):
            options.log.count(
                "captions left out that the file marks as rejected or precanned", len(of_image) - len(kept)
            )
        captions = [_caption(file.path, annotation) for annotation in kept]
        yield CaptionedImage(image_id, "", captions, file_named(images[image_id].get("file_name")))


def _is_withdrawn(annotation: dict[str, Any]) -> bool:
    """Whether VizWiz says that its annotators or its reviewers gave up on the photo."""
    return annotation.get("is_rejected") is True or annotation.get("is_precanned") is True


def _caption(path: Path, annotation: Annotation) -> Caption:
    where = f"{path}: annotations[{annotation.place}]"
    caption_id = annotation.place if annotation.caption_id is None else annotation.caption_id
    if not isinstance(caption_id, int):
        raise DataError(f"{where}: 'id' must be a number, found {caption_id!r}")
    return Caption(caption_id, caption_text(where, annotation.text))


def parse_coco(path: Path, value: Any) -> dict[str, list[Annotation]]:
    """The captions of each image in COCO's format: `images[].id`, `annotations[]` with `image_id`, `caption`, `id`.

    Images keep the order of `images`, captions that of `annotations`.

    Args:
        path: the file, for messages.
        value: its JSON value.

    Raises:
        DataError: another structure, an image listed twice, a caption that is not text or of an unlisted image.
    """
    images, annotations = (value.get(key) if isinstance(value, dict) else None for key in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path} has no lists 'images' and 'annotations'; is it one of COCO's captions_*.json?")
    of_image: dict[str, list[Annotation]] = {}
    for place, image in enumerate(images):
        image_id = record_image_id(f"{path}: images[{place}]", image, "id")
        if image_id in of_image:
            raise image_listed_twice(path, image_id)
        of_image[image_id] = []
    for place, annotation in enumerate(annotations):
        where = f"{path}: annotations[{place}]"
        image_id = record_image_id(where, annotation, "image_id")
        if image_id not in of_image:
            raise DataError(f"{where}: image {image_id} is not among the file's 'images'")
        if "caption" not in annotation:
            raise DataError(f"{where} lacks 'caption'; is it one of COCO's captions_*.json?")
        text = annotation["caption"]
        if not isinstance(text, str):
            raise DataError(f"{where}: a caption must be text, found {text!r:.60}")
        of_image[image_id].append(Annotation(place, annotation.get("id"), text))
    return of_image


COCO = CaptionFormat(
    "coco", "COCO's captions_*.json; also VizWiz, nocaps, annotation tools", recognise, read, two_names=True
)
