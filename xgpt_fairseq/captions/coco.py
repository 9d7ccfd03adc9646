"""coco: COCO's caption JSON, which is also the format of a split's references."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import IMAGE_COLUMNS, column_key, has_columns, split_name
from xgpt_fairseq.captions.json_values import caption_text, file_named, image_listed_twice, most, record_image_id
from xgpt_fairseq.errors import DataError

# So many annotations are looked at to find out what they are.
_HEAD = 20
_CAPTION = "caption"


def is_layout(value: Any) -> bool:
    """Whether it is COCO's, lists of images and of annotations that belong to them, of captions or of anything else."""
    return most("image_id" in annotation for annotation in _first_annotations(value))


def recognise(file: CaptionFile) -> bool:
    """Whether most of the first annotations have a caption."""
    return is_layout(file.json_value) and _caption_key(file, file.columns) is not None


def _first_annotations(value: Any) -> list[dict[str, Any]]:
    images, annotations = (value.get(key) if isinstance(value, dict) else None for key in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list):
        return []
    return [annotation for annotation in annotations[:_HEAD] if isinstance(annotation, dict)]


def _caption_key(file: CaptionFile, chosen: Mapping[str, str]) -> str | None:
    """The key of captions in annotations: `caption`, another usual name, or what --columns says; None: there is none.

    Raises:
        DataError: several may be.
    """
    head = _first_annotations(file.json)
    keys = [key for key in dict.fromkeys(itertools.chain.from_iterable(head)) if most(key in one for one in head)]
    if "caption" in chosen:
        return _key(keys, chosen["caption"])
    found = [key for key in keys if has_columns([IMAGE_COLUMNS[0], key], {})]
    if _CAPTION in found or not found:
        return _CAPTION if found else None
    if len(found) > 1:
        raise DataError(
            f"{file.path}: {' and '.join(map(repr, found))} of the annotations may all be captions: say which are by "
            "--columns caption=NAME"
        )
    return found[0]


class Annotation(NamedTuple):
    """A caption in COCO's format: its place in `annotations`, its `id` if it has one, its text."""

    place: int
    caption_id: Any
    text: str


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """COCO's `captions_train2014.json` and the like. The file says no split, unless --columns names a key of images."""
    key = _caption_key(file, options.columns) or options.columns.get("caption", _CAPTION)
    parsed = parse_coco(file.path, file.json, key, options.log.bad_record)
    images = {record_image_id(str(file.path), image, "id"): image for image in file.json["images"]}
    for image_id, of_image in parsed.items():
        try:
            split = _split(f"{file.path}: image {image_id}", images[image_id], options)
        except DataError as error:
            options.log.bad_record(error)
            continue
        kept = [annotation for annotation in of_image if not _is_withdrawn(file.json["annotations"][annotation.place])]
        if len(kept) < len(of_image):
            options.log.count(
                "captions left out that the file marks as rejected or precanned", len(of_image) - len(kept)
            )
        captions = [_caption(file.path, annotation) for annotation in kept]
        yield CaptionedImage(image_id, split, captions, file_named(images[image_id].get("file_name")))


def _split(where: str, image: dict[str, Any], options: CaptionOptions) -> str:
    """The split of one of `images`, under the key that --columns says; empty if it says none.

    Raises:
        DataError: the image lacks the key, or its value is no name.
    """
    if "split" not in options.columns:
        return ""
    name = options.columns["split"]
    key = _key(image, name)
    if key is None and options.columns_of_others:
        return ""
    if key is None:
        raise DataError(f"{where} has no {name!r} (--columns split=…); it has: {', '.join(image)[:200]}")
    return split_name(f"{where}: {key!r}", image[key])


def _key(keys: Iterable[str], name: str) -> str | None:
    """The one of *keys* that --columns means by *name*."""
    return next((key for key in keys if key == name or column_key(key) == column_key(name)), None)


def _is_withdrawn(annotation: dict[str, Any]) -> bool:
    """Whether VizWiz says that its annotators or its reviewers gave up on the photo."""
    return annotation.get("is_rejected") is True or annotation.get("is_precanned") is True


def _caption(path: Path, annotation: Annotation) -> Caption:
    where = f"{path}: annotations[{annotation.place}]"
    caption_id = annotation.caption_id if isinstance(annotation.caption_id, int) else annotation.place
    return Caption(caption_id, caption_text(where, annotation.text))


def _refuse(error: DataError) -> NoReturn:
    raise error


def parse_coco(
    path: Path,
    value: Any,
    key: str = _CAPTION,
    bad_record: Callable[[DataError], None] = _refuse,
    *,
    is_canonical: bool = False,
) -> dict[str, list[Annotation]]:
    """The captions of each image in COCO's format: `images[].id`, `annotations[]` with `image_id`, `caption`, `id`.

    Images keep the order of `images`, captions that of `annotations`.

    Args:
        path: the file, for messages.
        value: its JSON value.
        key: under which annotations have their caption, or a list of them.
        bad_record: what is done about an annotation whose caption is not text or of an unlisted image.
        is_canonical: whether its ids are those of a store. They are not made again: `1.png`, the id of `1.png.jpg`,
            would become `1`.

    Raises:
        DataError: another structure, or an image listed twice.
    """
    images, annotations = (value.get(key) if isinstance(value, dict) else None for key in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path} has no lists 'images' and 'annotations'; is it one of COCO's captions_*.json?")
    of_image: dict[str, list[Annotation]] = {}
    for place, image in enumerate(images):
        image_id = _image_id(f"{path}: images[{place}]", image, "id", is_canonical)
        if image_id in of_image:
            raise image_listed_twice(path, image_id)
        of_image[image_id] = []
    for place, annotation in enumerate(annotations):
        where = f"{path}: annotations[{place}]"
        try:
            image_id, texts = _captions(where, annotation, key, is_canonical)
            if image_id not in of_image:
                raise DataError(f"{where}: image {image_id} is not among the file's 'images'")
        except DataError as error:
            bad_record(error)
        else:
            of_image[image_id] += [Annotation(place, annotation.get("id"), text) for text in texts]
    return of_image


def _image_id(where: str, record: Any, key: str, is_canonical: bool) -> str:
    image_id = record_image_id(where, record, key)
    return str(record[key]) if is_canonical else image_id


def _captions(where: str, annotation: Any, key: str, is_canonical: bool) -> tuple[str, list[str]]:
    """The image and the captions of an annotation."""
    image_id = _image_id(where, annotation, "image_id", is_canonical)
    if key not in annotation:
        raise DataError(f"{where} lacks {key!r}; is it one of COCO's captions_*.json?")
    texts = annotation[key] if isinstance(annotation[key], list) else [annotation[key]]
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: a caption must be text, found {text!r:.60}")
    return image_id, texts


COCO = CaptionFormat(
    "coco",
    "COCO's captions_*.json; also VizWiz, nocaps, annotation tools",
    recognise,
    read,
    two_names=True,
    keeps_entities=True,
    columns=("caption", "split"),
)
