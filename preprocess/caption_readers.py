"""Readers of caption files: each yields images with their captions and split. Add a format: one function, one line.

Every reader streams `CaptionedImage`s in the file's order and raises `DataError` naming file and record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgpt_fairseq.data.image_id import canonical_image_id
from xgpt_fairseq.errors import DataError


@dataclass(frozen=True)
class Caption:
    """One caption, raw, with the number that its source gives it."""

    caption_id: int
    text: str


@dataclass(frozen=True)
class CaptionedImage:
    """An image id (`canonical_image_id`), the split it belongs to, and its captions."""

    image_id: str
    split: str
    captions: list[Caption]


# fairseq's names for splits; Karpathy's `restval` is training data in every published result
_SPLITS = {"train": "train", "restval": "train", "val": "valid", "valid": "valid", "test": "test"}


def fairseq_split(name: str) -> str:
    """fairseq's name for a split: `val` is `valid`, `restval` is `train`; other names stay."""
    return _SPLITS.get(name, name)


def load_json(path: Path) -> Any:
    """The JSON value in *path*, or a `DataError` that names the file and the place."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def read_karpathy(path: Path) -> Iterator[CaptionedImage]:
    """Karpathy's `dataset_coco.json`, `dataset_flickr30k.json`, `dataset_flickr8k.json`.

    `images[]` with `split`, `sentences[].raw` and `sentences[].sentid`; the image is `cocoid` where there is one,
    else `filename`.
    """
    value = load_json(path)
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path} has no list 'images'; is it one of Karpathy's files?")
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        try:
            image_id = canonical_image_id(image["cocoid"] if "cocoid" in image else image["filename"])
            captions = [Caption(int(s.get("sentid", i)), s["raw"]) for i, s in enumerate(image["sentences"])]
            split = fairseq_split(image["split"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
            raise DataError(
                f"{where} {problem}; each image needs cocoid or filename, split and sentences[].raw"
            ) from error
        yield CaptionedImage(image_id, split, captions)


def _is_karpathy(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    value = load_json(path)
    images = value.get("images") if isinstance(value, dict) else None
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


# name → (recognise, read)
CAPTION_READERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Iterator[CaptionedImage]]]] = {
    "karpathy": (_is_karpathy, read_karpathy),
}


def detect(path: Path) -> str:
    """The name of the format of *path*."""
    if not path.exists():
        raise DataError(f"{path} does not exist")
    for name, (recognise, _) in CAPTION_READERS.items():
        if recognise(path):
            return name
    raise DataError(f"{path}: not a caption file of a known format ({', '.join(CAPTION_READERS)}); name it by --format")


def read_captions(path: Path, name: str) -> Iterator[CaptionedImage]:
    """Read *path* in format *name* (`auto`: look at the file), checking what holds for every format.

    Raises:
        DataError: a caption that is empty or not text, an image that comes twice.
    """
    seen: set[str] = set()
    for image in CAPTION_READERS[detect(path) if name == "auto" else name][1](path):
        if image.image_id in seen:
            raise DataError(f"{path}: image {image.image_id} is listed twice; each image may stand there once")
        seen.add(image.image_id)
        for caption in image.captions:
            if not isinstance(caption.text, str) or not caption.text.strip():
                raise DataError(
                    f"{path}: image {image.image_id}, caption {caption.caption_id} is empty ({caption.text!r}); "
                    "remove it from the file"
                )
        yield image
