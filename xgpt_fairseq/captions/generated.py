"""Reading the captions that a model gave the images of a split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import record_image_id
from xgpt_fairseq.captions.references import References, named, parsed_json, text_of
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import write_json
from xgpt_fairseq.regions.image_ids import json_image_id

# fairseq-generate: sample, base-2 log-probability, detokenized text.
_GENERATED = re.compile(r"D-(\d+)\t([^\t]*)\t(.*)", re.DOTALL)

# fairseq-generate: sample, the first human caption of its image; of that the first letters are compared
_TRUTH = re.compile(r"^T-(\d+)\t(.*)$", re.MULTILINE)
_COMPARED = 20


def read_captions(path: Path, references: References) -> dict[str, str]:
    """Read one caption for each image of *references*: image id → caption, in the order of *references*.

    *path* is what fairseq-generate writes (its `D-` lines; of several hypotheses of an image the first, which is the
    best) or COCO's results, `[{"image_id", "caption"}]`. Its content tells which.

    Raises:
        DataError: neither of the two, an image unknown, missing or captioned twice.
    """
    text = text_of(path)
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
        raise DataError(f"{path}: {named(unknown)} not in {references.path}; are these the references of this split?")
    missing = [image_id for image_id in references.captions if image_id not in captions]
    if missing:
        raise DataError(
            f"{path}: {named(missing)} of {references.path} without a caption; scores need one for each of the "
            f"{len(references.captions)} images"
        )
    return {image_id: captions[image_id] for image_id in references.captions}


def write_coco_results(path: Path, captions: Mapping[str, str]) -> None:
    """Write *captions* as the COCO server takes them: `[{"image_id", "caption"}]`, ids as integers where they are."""
    write_json(
        path,
        [{"image_id": json_image_id(image_id), "caption": caption} for image_id, caption in captions.items()],
    )


def _check_split(path: Path, text: str, references: References) -> None:
    """Refuse the output of another split: samples are counted, so that only their `T-` lines tell the splits apart.

    fairseq-generate repeats the first caption of each image, lower case, tokenized and cut; letters and digits stay.
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
    # Not splitlines(): a caption may hold U+2028.
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
        # --nbest writes an image's hypotheses one after the other, the best first.
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
    content = parsed_json(path, text)
    if not isinstance(content, list):
        raise DataError(f'{path}: COCO results are a list, [{{"image_id": …, "caption": …}}]; found an object')
    captions: dict[str, str] = {}
    for position, result in enumerate(content):
        record = f"record {position}"
        image_id = record_image_id(f"{path}: {record}", result, "image_id")
        if image_id in captions:
            raise DataError(f"{path}: {record}: image {image_id} has a caption already; one for each image")
        captions[image_id] = _caption(path, record, result)
    return captions


def _caption(path: Path, record: str, value: dict[str, Any]) -> str:
    caption = value.get("caption")
    if not isinstance(caption, str):
        raise DataError(f'{path}: {record}: "caption" must be a string, found {_shown(caption)}')
    return caption


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]
