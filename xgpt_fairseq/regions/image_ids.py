"""One name for one image, whatever the archive calls it."""

from __future__ import annotations

import re

_EXTENSION = re.compile(r"\.(jpe?g|png|gif|bmp|webp|npz|npy)$", re.IGNORECASE)
_COCO_PREFIX = re.compile(r"^COCO_(train|val|test)\d{4}_(?=\d+$)")


def canonical_image_id(name: str | int) -> str:
    """The image id that *name* stands for: a string.

    COCO's long names and the bare number are one id, the number: `COCO_val2014_000000000042.jpg`,
    `000000000042.jpg`, `42` and the integer 42 all give `"42"`. Other names lose a file extension only.
    """
    text = _EXTENSION.sub("", str(name).strip())
    text = _COCO_PREFIX.sub("", text)
    return str(int(text)) if text.isascii() and text.isdigit() else text
