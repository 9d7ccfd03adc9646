"""The references of a split: the human captions that others are scored against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.coco import COCO, parse_coco
from xgpt_fairseq.captions.karpathy import KARPATHY
from xgpt_fairseq.captions.photo_texts import decode
from xgpt_fairseq.captions.registry import UNLISTED, CaptionSource, find_format, open_source, read_sources
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.errors import DataError

_NAMED = 5  # how many images an error message names
# Their files list the images in an order; of others, captions of one image may stand apart.
_IN_ORDER = (KARPATHY.name, COCO.name)
# What a data directory has beside its references.
_DATA_DIRECTORY = ("dict.txt", "dataset.json")


@dataclass(frozen=True)
class References:
    """The human captions of a split.

    Attributes:
        path: their file, for messages.
        captions: image id → its captions, in the order of the split (sample `i` of fairseq-generate is image `i`).
        file_names: image id → the name of its photo, where the file has one.
        is_ordered: whether the file has an order of images, so that captions can be told by their place.
    """

    path: Path
    captions: dict[str, list[str]]
    file_names: Mapping[str, str] = field(default_factory=dict)
    is_ordered: bool = True

    @property
    def image_ids(self) -> list[str]:
        return list(self.captions)


def read_references(path: Path) -> References:
    """Read *path* in COCO's caption format: `{"images": [{"id"}], "annotations": [{"image_id", "caption"}]}`.

    In a data directory, ids are those of its region store, and stay as they are. Elsewhere they may be names of files.

    Raises:
        DataError: another format, an image listed twice or without a caption, or a caption of an unlisted image.
    """
    is_own = all((path.parent / name).is_file() for name in _DATA_DIRECTORY)
    parsed = parse_coco(path, parsed_json(path, text_of(path)), is_canonical=is_own)
    captions = {image_id: [annotation.text for annotation in of_image] for image_id, of_image in parsed.items()}
    if not captions:
        raise DataError(f'{path}: "images" is empty; there is nothing to score against')
    bare = [image_id for image_id, of_image in captions.items() if not of_image]
    if bare:
        raise DataError(f"{path}: {named(bare)} without a caption; every image needs at least one")
    return References(path, captions)


def find_references(
    path: Path, split: str | None = None, *, name: str = "auto", options: CaptionOptions | None = None
) -> References:
    """The references in *path*: a data directory's file, as `read_references`, or captions of any format.

    Images without a caption are left out, and counted in the log of *options*.

    Args:
        path: the caption file.
        split: which images, by the source's or fairseq's name; None: the file must have one split only.
        name: the format, or `auto`.
        options: how caption files are read.

    Raises:
        DataError: an unreadable file, an unknown split, several splits and none named, or no captions.
    """
    options = replace(options or CaptionOptions(), unknown_split="", is_only_source=True)
    file = CaptionFile(path, options.columns)
    found = find_format(file) if name == "auto" and path.exists() else None
    if name == "auto" and (_is_of_data_directory(file, found) or (found is None and _is_json(path))):
        if split is not None and fairseq_split(split) != path.name.partition(".")[0]:
            raise DataError(f"{path} is of one split; --split {split} is for caption files that have several")
        return read_references(path)
    source = open_source(path, name) if found is None else CaptionSource(file, found)
    images = [image for image in read_sources([source], options) if image.split != UNLISTED]
    images = _of_split(path, images, None if split is None else fairseq_split(split))
    if bare := sum(not image.captions for image in images):
        options.log.count("images without a caption left out of the references", bare)
    images = [image for image in images if image.captions]
    if not images:
        raise DataError(f"{path}: no image has a caption; there is nothing to score against")
    return References(
        path,
        {image.image_id: [caption.text for caption in image.captions] for image in images},
        {image.image_id: image.file_name for image in images if image.file_name is not None},
        is_ordered=source.format.name in _IN_ORDER,
    )


def _is_json(path: Path) -> bool:
    """Whether *path* is a file that begins as JSON, or cannot be read as text: `read_references` says what is wrong."""
    return not path.exists() or (path.is_file() and text_of(path).lstrip().startswith(("[", "{")))


def _is_of_data_directory(file: CaptionFile, found: CaptionFormat | None) -> bool:
    """Whether xgpt-prepare-captions wrote it: COCO's format with nothing but ids of images."""
    return found is COCO and all(isinstance(image, dict) and image.keys() == {"id"} for image in file.json["images"])


def _of_split(path: Path, images: list[CaptionedImage], split: str | None) -> list[CaptionedImage]:
    splits = sorted({image.split for image in images})
    if split is None and len(splits) <= 1:
        return images
    named_splits = ", ".join(split or "(none said)" for split in splits)
    if split is None:
        raise DataError(f"{path} has images of splits {named_splits}: say which by --split")
    if split not in splits:
        raise DataError(f"{path} has no images of split {split!r}; it has: {named_splits}")
    return [image for image in images if image.split == split]


def text_of(path: Path) -> str:
    """The text of *path* without a byte order mark, or a `DataError` that says why there is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return decode(str(path), content)


def parsed_json(path: Path, text: str, first_line: int = 1) -> Any:
    """The JSON value that *text*, of *path* from *first_line* on, is, or a `DataError` that names the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{first_line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; lists in thousands of lists
        raise DataError(f"{path}:{first_line}: not JSON: {error}") from None


def named(image_ids: Iterable[str]) -> str:
    """'3 images (1, 2, 3)', and of many the first few."""
    ids = list(image_ids)
    names = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
    return f"{len(ids)} image{'s' if len(ids) > 1 else ''} ({names})"
