"""One name for one image, whatever the archive calls it."""

from __future__ import annotations

import re

_PHOTO_EXTENSIONS = "jpe?g|png|gif|bmp|webp"
_PHOTO = re.compile(rf".\.({_PHOTO_EXTENSIONS})$", re.IGNORECASE)
_EXTENSION = re.compile(rf"\.({_PHOTO_EXTENSIONS}|npz|npy)$", re.IGNORECASE)
_COCO_PREFIX = re.compile(r"^COCO_(train|val|test)\d{4}_(?=\d+$)")


def canonical_image_id(name: str | int) -> str:
    """The image id that *name* stands for: a string.

    COCO's long names and the bare number are one id, the number: `COCO_val2014_000000000042.jpg`,
    `000000000042.jpg`, `42` and the integer 42 all give `"42"`. Other names lose a file extension only.
    """
    text = _EXTENSION.sub("", str(name).strip())
    text = _COCO_PREFIX.sub("", text)
    return str(int(text)) if is_number(text) else text


def is_number(image_id: str) -> bool:
    """Whether an image's id is a number, as those of COCO and Flickr30k are."""
    return image_id.isascii() and image_id.isdigit()


def json_image_id(image_id: str) -> int | str:
    """The image id as COCO's tools expect it in JSON: a number where it is one."""
    return int(image_id) if is_number(image_id) else image_id


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is a photo, by an extension that `canonical_image_id` takes away."""
    return _PHOTO.search(name) is not None
