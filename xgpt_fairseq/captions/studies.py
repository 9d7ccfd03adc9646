"""studies: R2Gen's annotation.json, a report of several photos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import grouped_images, split_name
from xgpt_fairseq.captions.json_values import caption_text, file_name_of, image_id_of, most
from xgpt_fairseq.captions.records import HEAD, Record, json_list, record_lists, record_object
from xgpt_fairseq.errors import DataError


def recognise(file: CaptionFile) -> bool:
    """Whether there are lists of studies, one for each split."""
    value = file.json_value
    return _are_studies(value[:HEAD]) if isinstance(value, list) else bool(record_lists(value, _are_studies))


def _are_studies(head: list[Any]) -> bool:
    return most(isinstance(value, dict) and {"report", "image_path"} <= value.keys() for value in head)


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """IU X-Ray's and MIMIC-CXR's `annotation.json` by R2Gen: each photo of a study has its report as a caption.

    `{"train": [{"id", "report", "image_path": ["CXR1/0.png", "CXR1/1.png"], "split"}], "val": …, "test": …}`.
    """

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for record in json_list(file, _are_studies):
            try:
                of_study = _images_of_study(record)
            except DataError as error:
                options.log.bad_record(error)
                continue
            yield from ((record.where, image) for image in of_study)

    return grouped_images(images, options.log)


def _images_of_study(record: Record) -> list[CaptionedImage]:
    where, value = record.where, record_object(record)
    for key in ("report", "image_path"):
        if key not in value:
            raise DataError(f"{where} lacks {key!r}")
    paths = value["image_path"] if isinstance(value["image_path"], list) else [value["image_path"]]
    if not paths:
        raise DataError(f"{where}: 'image_path' names no photo")
    report = caption_text(where, value["report"])
    split = split_name(f"{where}: 'split'", value.get("split")) or record.split
    return [
        CaptionedImage(image_id_of(where, "image_path", path), split, [Caption(0, report)], file_name_of(path))
        for place, path in enumerate(paths)
        if path not in paths[:place]
    ]


STUDIES = CaptionFormat(
    "studies", "R2Gen's annotation.json: a report of each study's photos", recognise, read, keeps_entities=True
)
