"""Reads the references of a split and the generated captions to score against them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import record_image_id
from xgpt_fairseq.captions.coco import parse_coco
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import write_json
from xgpt_fairseq.regions.image_ids import json_image_id

_NAMED = 5  # how many images an error message names

# fairseq-generate: sample, base-2 log-probability, detokenized text.
_GENERATED = re.compile(r"D-(\d+)\t([^\t]*)\t(.*)", re.DOTALL)

# fairseq-generate: sample, the first human caption of its image, whose first letters are compared
_TRUTH = re.compile(r"^T-(\d+)\t(.*)$", re.MULTILINE)
_COMPARED = 20


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
    parsed = parse_coco(path, _parsed(path, _text(path)))
    captions = {image_id: [annotation.text for annotation in of_image] for image_id, of_image in parsed.items()}
    if not captions:
        raise DataError(f'{path}: "images" is empty; there is nothing to score against')
    bare = [image_id for image_id, of_image in captions.items() if not of_image]
    if bare:
        raise DataError(f"{path}: {_named(bare)} without a caption; every image needs at least one")
    return References(path, captions)


def read_captions(path: Path, references: References) -> dict[str, str]:
    """Read one caption for each image of *references*: image id → caption, in the order of *references*.

    *path* is the output of fairseq-generate (its `D-` lines; the first hypothesis of an image is the best) or COCO
    results, `[{"image_id", "caption"}]`; the content tells which.

    Raises:
        DataError: another format, or an image that is unknown, missing or captioned twice.
    """
    text = _text(path)
    if re.search(r"^D-\d+\t", text, re.MULTILINE):
        _check_split(path, text, references)
        captions = _generated(path, text, references.image_ids)
    elif text.lstrip().startswith(("[", "{")):
        captions = _coco_results(path, text)
    else:
        raise DataError(
            f"{path}: no line D-<image>, and not JSON: expected fairseq-generate's output (--results-path writes it as "
            "generate-<split>.txt; --quiet leaves the captions out) or COCO results"
        )
    unknown = [image_id for image_id in captions if image_id not in references.captions]
    if unknown:
        raise DataError(f"{path}: {_named(unknown)} not in {references.path}; are these the references of this split?")
    missing = [image_id for image_id in references.captions if image_id not in captions]
    if missing:
        raise DataError(
            f"{path}: {_named(missing)} of {references.path} without a caption; scores need one for each of the "
            f"{len(references.captions)} images"
        )
    return {image_id: captions[image_id] for image_id in references.captions}


def write_coco_results(path: Path, captions: Mapping[str, str]) -> None:
    """Write *captions* for the COCO server: `[{"image_id", "caption"}]`, with numeric ids as integers."""
    write_json(
        path,
        [{"image_id": json_image_id(image_id), "caption": caption} for image_id, caption in captions.items()],
    )


def _check_split(path: Path, text: str, references: References) -> None:
    """Refuse the output of another split. Samples are numbered, so only their `T-` lines tell splits apart.

    fairseq-generate prints the first caption of each image there, in lower case, tokenized and truncated; letters and
    digits stay.
    """
    first = [_letters(captions[0]) for captions in references.captions.values()]
    repeated = [(int(number), _letters(truth)) for number, truth in _TRUTH.findall(text)]
    wrong = [i for i, truth in repeated if i >= len(first) or not first[i].startswith(truth[:_COMPARED])]
    if len(wrong) > len(repeated) / 2:
        raise DataError(
            f"{path} is not of the split of {references.path}: the captions in its lines T-{wrong[0]}, … "
            f"({len(wrong)} of {len(repeated)}) are not those of the images"
        )


def _letters(caption: str) -> str:
    return "".join(character for character in caption.lower() if character.isalnum())


def _generated(path: Path, text: str, image_ids: list[str]) -> dict[str, str]:
    captions: dict[str, str] = {}
    previous = None
    # Not splitlines(): a caption may contain U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("D-"):
            continue
        match = _GENERATED.fullmatch(line)
        if match is None:
            raise DataError(f"{path}:{number}: {line[:60]!r} is not D-<sample><tab><score><tab><caption>")
        index = int(match[1])
        if index >= len(image_ids):
            raise DataError(
                f"{path}:{number}: sample {index}, but the references have {len(image_ids)} images "
                f"(0 to {len(image_ids) - 1}); are these the references of this split?"
            )
        image_id = image_ids[index]
        # --nbest writes the hypotheses of an image consecutively, the best first.
        if index == previous:
            continue
        if image_id in captions:
            raise DataError(
                f"{path}:{number}: sample {index} (image {image_id}) appears again after other samples; "
                "does the file hold the output of two runs?"
            )
        captions[image_id] = match[3].strip()
        previous = index
    return captions


def _coco_results(path: Path, text: str) -> dict[str, str]:
    content = _parsed(path, text)
    if not isinstance(content, list):
        raise DataError(f'{path}: COCO results are a list, [{{"image_id": …, "caption": …}}]; found an object')
    captions: dict[str, str] = {}
    for position, result in enumerate(content):
        record = f"record {position}"
        image_id = record_image_id(f"{path}: {record}", result, "image_id")
        if image_id in captions:
            raise DataError(f"{path}: {record}: image {image_id} has a caption already; one per image expected")
        captions[image_id] = _caption(path, record, result)
    return captions


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def _caption(path: Path, record: str, value: dict[str, Any]) -> str:
    caption = value.get("caption")
    if not isinstance(caption, str):
        raise DataError(f'{path}: {record}: "caption" must be a string, found {_shown(caption)}')
    return caption


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]


def _named(image_ids: Iterable[str]) -> str:
    """'3 images (1, 2, 3)', with at most the first few ids."""
    ids = list(image_ids)
    names = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
    return f"{len(ids)} image{'s' if len(ids) > 1 else ''} ({names})"
