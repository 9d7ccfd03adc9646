"""jsonl: JSON lines, the format for your own captions."""

from __future__ import annotations

import json
from collections.abc import Iterator

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    caption_text,
    fairseq_split,
    record_image_id,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines


def recognise(file: CaptionFile) -> bool:
    """Whether each line is an object with an image and captions."""
    try:
        values = [json.loads(line) for line in file.first_lines]
    except json.JSONDecodeError:
        return False
    return bool(values) and all(
        isinstance(value, dict) and "image" in value and ("caption" in value or "captions" in value) for value in values
    )


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read one JSON object per line: `image`, `caption` or `captions` (a list), optional `split`; others are ignored.

    Captions of one image may be on consecutive lines.
    """
    path = file.path
    image: CaptionedImage | None = None
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        image_id, split, texts = _parse_line(where, line)
        if image is None or image.image_id != image_id:
            if image is not None:
                yield image
            image = CaptionedImage(image_id, split, [])
        elif image.split != split:
            raise DataError(f"{where}: image {image_id} is of split {split!r}, on the line before of {image.split!r}")
        image.captions.extend([Caption(place, text) for place, text in enumerate(texts, start=len(image.captions))])
    if image is not None:
        yield image


def _parse_line(where: str, line: str) -> tuple[str, str, list[str]]:
    """Image id, split and captions."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: {line[:60]!r} is not a JSON object")
    if ("caption" in value) == ("captions" in value):
        raise DataError(f"{where} must have either 'caption' or 'captions'")
    texts = [value["caption"]] if "caption" in value else value["captions"]
    if not isinstance(texts, list):
        raise DataError(f"{where}: 'captions' must be a list, found {repr(texts)[:60]}")
    split = value.get("split")
    if not isinstance(split, str | None):
        raise DataError(f"{where}: 'split' must be a name, found {repr(split)[:60]}")
    image_id = record_image_id(where, value, "image")
    return image_id, fairseq_split(split or ""), [caption_text(where, text) for text in texts]


JSONL = CaptionFormat("jsonl", "JSON lines with image, caption or captions, and split", recognise, read)
