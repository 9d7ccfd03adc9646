"""Readers of caption files: each yields images with their captions and split. Add a format: one function, one line.

A line of `CAPTION_READERS` names a format, how it is recognised, and its reader. Every reader streams `CaptionedImage`s
in the file's order and raises `DataError` naming file and record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionOptions,
    caption_text,
    fairseq_split,
    image_id_of,
    is_unicode,
    load_json,
    split_in_name,
)
from xgpt_fairseq.captions.conceptual_captions import is_cc_tsv, read_cc_tsv
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import first_lines, numbered_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id

# The split of images that are in none of the lists of --split-files
UNLISTED = "(in no list)"

_DEFAULTS = CaptionOptions()


def read_karpathy(path: Path, options: CaptionOptions) -> Iterator[CaptionedImage]:
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


def read_coco(path: Path, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """COCO's `captions_train2014.json` and the like: `images[].id`, `annotations[]` with `image_id`, `caption`, `id`.

    The images come in the order of `images`, captions in that of `annotations`. The file says no split.
    """
    value = load_json(path)
    listed, annotations = (value.get(key) if isinstance(value, dict) else None for key in ("images", "annotations"))
    if not isinstance(listed, list) or not isinstance(annotations, list):
        raise DataError(f"{path} has no lists 'images' and 'annotations'; is it one of COCO's captions_*.json?")
    images: dict[str, CaptionedImage] = {}
    for number, image in enumerate(listed):
        image_id = _json_id(f"{path}: images[{number}]", image, "id")
        if image_id in images:
            raise _twice(path, image_id)
        images[image_id] = CaptionedImage(image_id, "", [])
    for number, annotation in enumerate(annotations):
        where = f"{path}: annotations[{number}]"
        image_id = _json_id(where, annotation, "image_id")
        if image_id not in images:
            raise DataError(f"{where}: image {image_id} is not among the file's 'images'")
        if "caption" not in annotation:
            raise DataError(f"{where} lacks 'caption'; is it one of COCO's captions_*.json?")
        caption_id = annotation.get("id", number)
        if not isinstance(caption_id, int):
            raise DataError(f"{where}: 'id' must be a number, found {caption_id!r}")
        images[image_id].captions.append(Caption(caption_id, caption_text(where, annotation["caption"])))
    yield from images.values()


_TOKEN_LINE = re.compile(r"([^\t]+)#(\d+)\t(.*)", re.DOTALL)


def read_flickr30k_token(path: Path, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Flickr30k's `results_20130124.token` and Flickr8k's `Flickr8k.token.txt`: `1000092795.jpg#0`, tab, caption.

    What is in front of the last `#` is the image, `2258277193_586949ec62.jpg.1` too. The file says no split.
    """
    images: dict[str, CaptionedImage] = {}
    numbers: set[tuple[str, int]] = set()
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        where = f"{path}: line {line}"
        match = _TOKEN_LINE.fullmatch(text)
        if match is None:
            raise DataError(f"{where}: {text[:60]!r} is not IMAGE#NUMBER, a tab and a caption")
        image_id, number = canonical_image_id(match[1]), int(match[2])
        if (image_id, number) in numbers:
            raise DataError(f"{where}: caption {number} of image {image_id} is listed twice")
        numbers.add((image_id, number))
        image = images.setdefault(image_id, CaptionedImage(image_id, "", []))
        image.captions.append(Caption(number, caption_text(where, match[3])))
    yield from images.values()


def read_jsonl(path: Path, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A JSON object a line: `image`, `caption` or `captions` (a list), and `split` or not; other keys are free.

    Captions of one image may stand on lines that follow each other.
    """
    image: CaptionedImage | None = None
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        image_id, split, texts = _json_line(where, line)
        if image is None or image.image_id != image_id:
            if image is not None:
                yield image
            image = CaptionedImage(image_id, split, [])
        elif image.split != split:
            raise DataError(f"{where}: image {image_id} is of split {split!r}, on the line before of {image.split!r}")
        image.captions.extend([Caption(place, text) for place, text in enumerate(texts, start=len(image.captions))])
    if image is not None:
        yield image


def _json_line(where: str, line: str) -> tuple[str, str, list[str]]:
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
    return _json_id(where, value, "image"), fairseq_split(split or ""), [caption_text(where, text) for text in texts]


def _json_id(where: str, record: Any, key: str) -> str:
    if not isinstance(record, dict) or key not in record:
        raise DataError(f"{where} lacks {key!r}")
    return image_id_of(where, key, record[key])


def _is_karpathy(path: Path) -> bool:
    images = _json_object(path).get("images")
    return isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "sentences" in images[0]


def _is_coco(path: Path) -> bool:
    value = _json_object(path)
    images, annotations = value.get("images"), value.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list) or not annotations:
        return False
    return isinstance(annotations[0], dict) and {"image_id", "caption"} <= annotations[0].keys()


def _is_flickr30k_token(path: Path) -> bool:
    lines = first_lines(path)
    return bool(lines) and all(map(_TOKEN_LINE.fullmatch, lines))


def _is_jsonl(path: Path) -> bool:
    try:
        values = [json.loads(line) for line in first_lines(path)]
    except json.JSONDecodeError:
        return False
    return bool(values) and all(
        isinstance(value, dict) and "image" in value and ("caption" in value or "captions" in value) for value in values
    )


def _json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of this name; empty if there is none."""
    if path.suffix != ".json" or _is_jsonl(path):
        return {}
    value = load_json(path)
    return value if isinstance(value, dict) else {}


# name → (recognise, read)
CaptionReader = Callable[[Path, CaptionOptions], Iterator[CaptionedImage]]
CAPTION_READERS: dict[str, tuple[Callable[[Path], bool], CaptionReader]] = {
    "karpathy": (_is_karpathy, read_karpathy),
    "coco": (_is_coco, read_coco),
    "flickr30k-token": (_is_flickr30k_token, read_flickr30k_token),
    "cc-tsv": (is_cc_tsv, read_cc_tsv),
    "jsonl": (_is_jsonl, read_jsonl),
}


def find_format(path: Path) -> str | None:
    """The name of the format of *path*, by its content; None if it is none."""
    return next((name for name, (recognise, _) in CAPTION_READERS.items() if recognise(path)), None)


def detect(path: Path) -> str:
    """The name of the format of *path*."""
    if not path.exists():
        raise DataError(f"{path} does not exist")
    name = find_format(path)
    if name is None:
        raise DataError(
            f"{path}: not a caption file of a known format ({', '.join(CAPTION_READERS)}); name it by --format"
        )
    return name


def read_captions(path: Path, name: str, options: CaptionOptions = _DEFAULTS) -> Iterator[CaptionedImage]:
    """Read *path* in format *name* (`auto`: look at the file), checking what holds for every format.

    An image is of the split that its record says, or that the file was named by (SPLIT=FILE), or in whose list it is
    (--split-files). Where none of them says it, it is `UNLISTED` if there are lists; else the file's name may tell.

    Raises:
        DataError: a caption that is empty or not text, an image that comes twice, a split that is said in different
            ways or in none.
    """
    return read_sources([(path, detect(path) if name == "auto" else name)], options)


def read_sources(sources: Iterable[tuple[Path, str]], options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read several files, each with the name of its format, as `read_captions` reads one.

    Raises:
        DataError: as `read_captions`, or an image is in more than one file.
    """
    before: dict[Path, set[str]] = {}
    for path, name in sources:
        seen: set[str] = set()
        for image in CAPTION_READERS[name][1](path, options):
            if image.image_id in seen:
                raise _twice(path, image.image_id)
            for other, ids in before.items():
                if image.image_id in ids:
                    raise DataError(f"image {image.image_id} is in {path} and in {other}; it may be in one of them")
            seen.add(image.image_id)
            _check_captions(path, image)
            split = _split(path, image, options)
            yield image if image.split == split else CaptionedImage(image.image_id, split, image.captions)
        before[path] = seen


def _split(path: Path, image: CaptionedImage, options: CaptionOptions) -> str:
    said = {
        "its record": image.split,
        "SPLIT=FILE": options.named_splits.get(path),
        "--split-files": options.split_lists.get(image.image_id) if options.split_lists is not None else None,
    }
    different = {split for split in said.values() if split}
    if len(different) == 1:
        return different.pop()
    if different:
        ways = ", ".join(f"{split!r} by {way}" for way, split in said.items() if split)
        raise DataError(f"{path}: image {image.image_id} is of split {ways}; these must agree")
    if options.split_lists is not None:
        return UNLISTED
    split = split_in_name(path.name) or options.unknown_split
    if split is None:
        raise DataError(
            f"{path}: of which split is image {image.image_id}? Neither its record nor the file's name says it: name "
            f"the file as SPLIT=FILE (such as train={path}), or the images of each split by --split-files"
        )
    return split


def _check_captions(path: Path, image: CaptionedImage) -> None:
    for caption in image.captions:
        if not isinstance(caption.text, str) or not caption.text.strip():
            raise DataError(
                f"{path}: image {image.image_id}, caption {caption.caption_id} is empty ({caption.text!r}); "
                "remove it from the file"
            )
        if not is_unicode(caption.text):
            raise DataError(
                f"{path}: a caption is not Unicode text: image {image.image_id}, caption {caption.caption_id}, "
                f"{caption.text!r}"
            )


def _twice(path: Path, image_id: str) -> DataError:
    return DataError(
        f"{path}: image {image_id} is listed twice; each image may stand there once, with all its captions together"
    )
