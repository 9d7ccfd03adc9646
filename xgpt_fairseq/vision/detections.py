"""Boxes of any detector, from COCO's JSON format for detection results."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import NameIndex, canonical_image_id
from xgpt_fairseq.regions.validation import normalise_boxes

_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Detected:
    """The boxes of one photo, the most confident first.

    boxes (n, 4) float64 x1 y1 x2 y2 in pixels of the upright photo; scores (n,) float32 in 0..1; categories (n,) int64;
    records (n,) their indices in the file; truncated: whether there were more.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]
    categories: npt.NDArray[np.int64]
    records: npt.NDArray[np.int64]
    truncated: bool


class Detections:
    """The detections of many photos, in arrays: COCO's training photos have millions.

    Attributes:
        path: the file.
        boxes: number of boxes that are kept.
        photos: number of photos that have boxes.
        others: number of records of other photos.
    """

    def __init__(self, path: Path, wanted: Collection[str], max_boxes: int) -> None:
        """Read the detections of *wanted* image ids, the *max_boxes* most confident of each photo.

        A record may name its photo by the id, or by its file with any folders (see `NameIndex`).

        Raises:
            DataError: the file is no JSON list of detections, or one of them is broken, or none is of a wanted photo;
                a record's name fits several photos, or records of different names fit one.
        """
        self.path = path
        self.max_boxes = max_boxes
        self.others = 0
        names = NameIndex((image_id, image_id) for image_id in wanted)
        named: dict[str, str] = {}  # image id → as the records name it
        rows: dict[str, int] = {}
        photos, records, categories = array("q"), array("q"), array("q")
        numbers = array("d")  # x1 y1 x2 y2 score
        other = None
        for index, record in enumerate(_records(path)):
            given = _image_id(record, path, index)
            found = names.find_id(given)
            if not found:
                other = given
                self.others += 1
                continue
            name = found[0]
            if len(found) > 1:
                raise DataError(
                    f"{path}, record [{index}]: image_id {given!r} may be {name} or {found[1]}; name its folder, too"
                )
            if named.setdefault(name, given) != given:
                raise DataError(
                    f"{path}, record [{index}]: image_id {given!r} is photo {name}, but {named[name]!r} before it is, "
                    "too; a photo needs one name, and photos of one name need their folders among the photos"
                )
            where = f"{path}, record [{index}], image {name}"
            numbers.extend(_box_and_score(record, where))
            categories.append(_category(record, where))
            photos.append(rows.setdefault(name, len(rows)))
            records.append(index)
        if not rows:
            few = (
                f"such as {other}, while the photos are such as {next(iter(wanted), None)}" if other else "it is empty"
            )
            raise DataError(f"{path} has no detection of any of the photos: {few}")
        values = np.frombuffer(numbers, dtype=np.float64).reshape(-1, 5)
        # By photo and score; ties in the order of the file.
        order = np.lexsort((-values[:, 4], np.frombuffer(photos, dtype=np.int64)))
        self._rows = rows
        self._values = values[order]
        self._categories = np.frombuffer(categories, dtype=np.int64)[order]
        self._records = np.frombuffer(records, dtype=np.int64)[order]
        counts = np.bincount(np.frombuffer(photos, dtype=np.int64))
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        self.photos = len(rows)
        self.boxes = int(np.minimum(counts, max_boxes).sum())

    def of(self, image_id: str) -> Detected:
        """The detections of a photo, which can be none."""
        row = self._rows.get(image_id)
        first, last = (0, 0) if row is None else (int(self._offsets[row]), int(self._offsets[row + 1]))
        kept = slice(first, min(last, first + self.max_boxes))
        values = self._values[kept]
        return Detected(
            boxes=values[:, :4],
            scores=values[:, 4].astype(np.float32),
            categories=self._categories[kept],
            records=self._records[kept],
            truncated=last - first > self.max_boxes,
        )

    def normalised(self, image_id: str, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """The boxes of a photo of this width and height: (n, 4) float32 in 0..1, clipped like `normalise_boxes`.

        Raises:
            DataError: a box lies outside the photo; names the record.
        """
        detected = self.of(image_id)
        if len(detected.boxes) == 0:
            return np.zeros((0, 4), dtype=np.float32)
        try:
            return normalise_boxes(detected.boxes, size, pixel=True)
        except DataError:
            for box, record in zip(detected.boxes, detected.records, strict=True):
                self._check_box(box[None], size, f"{self.path}, record [{record}], image {image_id}")
            raise

    def _check_box(self, box: npt.NDArray[np.float64], size: tuple[int, int], where: str) -> None:
        try:
            normalise_boxes(box, size, pixel=True, image=where)
        except DataError as error:
            raise DataError(
                f"{error} (as x1 y1 x2 y2; boxes are in pixels of the upright photo, rotated by its EXIF orientation)"
            ) from None


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list one by one; together they would take several times the memory of the text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable as JSON: {error}") from None
    decoder = json.JSONDecoder()
    at = _skip_space(text, 0)
    if text[at : at + 1] != "[":
        raise DataError(f"{path}: not a list; COCO's results are [{{image_id, bbox, category_id, score}}, …]")
    at = _skip_space(text, at + 1)
    index = 0
    # Millions of records take a minute; a small file needs no bar.
    bar = tqdm(
        desc=f"reading {path.name}", total=len(text), unit="B", unit_scale=True, delay=2, leave=False, disable=None
    )
    while text[at : at + 1] != "]" or index:
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} is not readable as JSON, record [{index}]: {error}; is the file truncated?"
            ) from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, record [{index}]: {record!r}; an object with image_id, bbox, … expected")
        bar.update(at - bar.n)
        yield record
        index += 1
        at = _skip_space(text, at)
        if text[at : at + 1] != ",":
            break
        at = _skip_space(text, at + 1)
    bar.close()
    if text[at : at + 1] != "]" or _skip_space(text, at + 1) != len(text):
        raise DataError(f"{path} is not readable as JSON: no end of the list after record [{index - 1}]")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _image_id(record: dict[str, Any], path: Path, index: int) -> str:
    value = record.get("image_id")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(f"{path}, record [{index}]: image_id is {value!r}; a number or a name expected")
    return canonical_image_id(value)


def _box_and_score(record: dict[str, Any], where: str) -> tuple[float, float, float, float, float]:
    box = record.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise DataError(f"{where}: bbox is {box!r:.200}; [x, y, width, height] in pixels expected")
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise DataError(f"{where}: bbox is {box!r}; width and height, the last two, must not be negative")
    score = record.get("score")
    if not _is_number(score) or not 0 <= score <= 1:
        raise DataError(f"{where}: score is {score!r:.60}; a confidence in 0..1 expected")
    return x, y, x + width, y + height, score


def _category(record: dict[str, Any], where: str) -> int:
    category = record.get("category_id")
    if isinstance(category, bool) or not isinstance(category, int) or not -(2**63) <= category < 2**63:
        raise DataError(f"{where}: category_id is {category!r:.60}; a whole number of 64 bits expected")
    return category


def _is_number(value: Any) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
