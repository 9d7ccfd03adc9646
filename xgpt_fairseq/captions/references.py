"""The references of a split: the human captions that others are scored against."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.coco import parse_coco
from xgpt_fairseq.errors import DataError

_NAMED = 5  # how many images an error message names


@dataclass(frozen=True)
class References:
    """The human captions of a split.

    Attributes:
        path: their file, for messages.
        captions: image id → its captions, in the order of the split (sample `i` of fairseq-generate is image `i`).
    """

    path: Path
    captions: dict[str, list[str]]

    @property
    def image_ids(self) -> list[str]:
        return list(self.captions)


def read_references(path: Path) -> References:
    """Read *path* in COCO's caption format: `{"images": [{"id"}], "annotations": [{"image_id", "caption"}]}`.

    Raises:
        DataError: another format, an image listed twice or without a caption, or a caption of an unlisted image.
    """
    parsed = parse_coco(path, parsed_json(path, text_of(path)))
    captions = {image_id: [annotation.text for annotation in of_image] for image_id, of_image in parsed.items()}
    if not captions:
        raise DataError(f'{path}: "images" is empty; there is nothing to score against')
    bare = [image_id for image_id, of_image in captions.items() if not of_image]
    if bare:
        raise DataError(f"{path}: {named(bare)} without a caption; every image needs at least one")
    return References(path, captions)


def text_of(path: Path) -> str:
    """The text of *path*, or a `DataError` that says why there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parsed_json(path: Path, text: str) -> Any:
    """The JSON value that *text*, of *path*, is, or a `DataError` that names the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def named(image_ids: Iterable[str]) -> str:
    """'3 images (1, 2, 3)', and of many the first few."""
    ids = list(image_ids)
    names = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
    return f"{len(ids)} image{'s' if len(ids) > 1 else ''} ({names})"
