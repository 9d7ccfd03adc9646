"""vinvl-tsv: region features of Oscar and VinVL in TSV files, with boxes in the last six values of each feature.

Layouts and order of the six values: microsoft/Oscar, `oscar/datasets/oscar_tsv.py` and `oscar/run_captioning.py`, and
its authors in issue 10.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives import tsv as tsv_files
from xgpt_fairseq.archives.base import BoxKind, Pending, Record, RegionReader
from xgpt_fairseq.errors import DataError

FEATURES: Final = "features.tsv"
PATTERNS: Final = (FEATURES, "*.feature.tsv", "*_img_frcnn_feats.tsv")
PREDICTIONS: Final = "predictions.tsv"

# x1/W y1/H x2/W y2/H w/W h/H
BOX_VALUES: Final = 6
# Tolerance of the last two against x2 - x1 and y2 - y1, and of a box against the one in predictions.tsv. Real files
# agree to float32; some programs count pixels so that a box is one pixel larger.
TOLERANCE: Final = 0.01

COLUMNS: Final = ("image_id", "num_boxes", "features")
JSON_COLUMNS: Final = ("image_id", "JSON with num_boxes and features")
_JSON_FEATURES: Final = re.compile(rb'\{.*"features"\s*:\s*"', re.DOTALL)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]+=*")


@dataclass(frozen=True)
class PendingLine:
    """One image: a line of features, and the image's line of predictions.tsv if there is one."""

    place: tsv_files.Place
    columns: tuple[str, ...]
    width: int
    prediction: tsv_files.Place | None = None
    not_in: Path | None = None  # the predictions that lack it

    def where(self) -> str:
        return self.place.where()

    def decode(self) -> Record:
        try:
            record = self._parse(self.place.read())
        except ValueError as error:
            raise DataError(f"{self.where()}: {error}") from None
        if self.not_in is not None:
            raise DataError(f"{self.where()}: {self.not_in} has no image {record.image_id}, or not in the same order")
        if self.prediction is None:
            return record
        try:
            return _with_objects(record, self.prediction.read())
        except ValueError as error:
            raise DataError(
                f"{self.prediction.where()}: {error}. (Without {PREDICTIONS}, {self.place.file.name} is imported "
                "without sizes, labels and scores.)"
            ) from None

    def _parse(self, line: bytes) -> Record:
        image_id, count, data = _fields(line, self.columns)
        values = tsv_files.array(data, "features", "<f4", (count, self.width))
        boxes = values[:, -BOX_VALUES:-2]
        _check_extent(values[:, -BOX_VALUES:])
        return Record(image_id, values[:, :-BOX_VALUES], boxes)


class VinvlTsvReader(RegionReader):
    """Positions count bytes over all files, which are read by name, each in the order of its lines."""

    name: ClassVar[str] = "vinvl-tsv"
    layout: ClassVar[str] = f"{FEATURES} or *.feature.tsv with {len(COLUMNS)} columns, or {len(JSON_COLUMNS)} with JSON"
    unit: ClassVar[str] = "B"
    box_kind: BoxKind = "normalised"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        files = _find_files(path)
        columns = _layout(files[0]) if files else None
        if columns is None:
            return None
        beside = f", with {PREDICTIONS}" if _predictions(files[0]) else ""
        return f"{len(files)} TSV file(s) with the columns {', '.join(columns)}{beside}"

    def __init__(self, path: Path) -> None:
        self.root = path
        self.files = _find_files(path)
        if not self.files:
            raise DataError(f"{path}: no such TSV file ({self.layout})")
        self.sizes = [file.stat().st_size for file in self.files]
        self.end = sum(self.sizes)
        self.columns, self.width = _look_at_first_line(self.files[0])
        for file, size in zip(self.files, self.sizes, strict=True):
            if _layout(file) != self.columns:
                raise DataError(f"{file}: other columns than in {self.files[0]}: import them one by one")
            _check_whole(file, size)

    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        file: Path | None = None
        beside: Path | None = None
        predictions: Iterator[tuple[bytes, tsv_files.Place]] = iter(())
        for place, line, next_position in tsv_files.lines(self.files, position):
            if place.file != file:
                file, beside = place.file, _predictions(place.file)
                predictions = iter(()) if beside is None else _by_image(beside)
            prediction = None
            if beside is not None:
                # When an import is resumed, the first one is far into the file.
                image_id = _image_id(line)
                prediction = next((found for name, found in predictions if name == image_id), None)
            not_in = beside if prediction is None else None
            yield PendingLine(place, self.columns, self.width, prediction, not_in), next_position

    def describe(self) -> dict[str, Any]:
        files = [
            {"name": file.relative_to(self.root).as_posix() if file != self.root else file.name, "bytes": size}
            for file, size in zip(self.files, self.sizes, strict=True)
        ]
        predictions = [_predictions(file) for file in self.files]
        return {
            "format": self.name,
            "columns": list(self.columns),
            "files": files,
            "predictions_bytes": [None if file is None else file.stat().st_size for file in predictions],
        }


def _find_files(path: Path) -> list[Path]:
    """The feature files in a folder; if it has none, those in its subfolders, as in large sets."""
    if path.is_file():
        return [path]
    here = sorted({file for pattern in PATTERNS for file in path.glob(pattern)})
    return here or sorted(path.glob(f"*/{FEATURES}"))


def _layout(file: Path) -> tuple[str, ...] | None:
    fields = tsv_files.first_columns(file)
    if len(fields) == len(COLUMNS) and fields[1].strip().isdigit() and _BASE64.fullmatch(fields[2].strip()):
        return COLUMNS
    if len(fields) == len(JSON_COLUMNS) and _JSON_FEATURES.match(fields[1]):
        return JSON_COLUMNS
    return None


def _predictions(file: Path) -> Path | None:
    """The file of objects that belongs to *file*, if there is one.

    `*.label.tsv` does not belong to `*.feature.tsv`: it comes from another run of the detector (Oscar's issue 103).
    """
    beside = file.with_name(PREDICTIONS)
    return beside if file.name == FEATURES and beside.is_file() else None


def _by_image(predictions: Path) -> Iterator[tuple[bytes, tsv_files.Place]]:
    for place, line, _ in tsv_files.lines([predictions]):
        yield _image_id(line), place


def _image_id(line: bytes) -> bytes:
    return line[: max(line.find(b"\t"), 0)].strip()


def _look_at_first_line(file: Path) -> tuple[tuple[str, ...], int]:
    """The columns of all lines and the width of all features with their box values, by the first line that is whole."""
    columns = _layout(file)
    if columns is None:
        raise DataError(
            f"{file}, line 1: {len(tsv_files.first_columns(file))} columns; expected are {', '.join(COLUMNS)}, or "
            f"{' and '.join(JSON_COLUMNS)}"
        )

    def width(line: bytes) -> int:
        _, count, data = _fields(line, columns)
        found = tsv_files.feature_width(tsv_files.decoded(data, "features"), count)
        if found <= BOX_VALUES:
            raise ValueError(f"features are {found} wide; more than the {BOX_VALUES} values of a box are needed")
        return found

    return columns, tsv_files.of_first_line(file, width)


def _fields(line: bytes, columns: tuple[str, ...]) -> tuple[str, int, bytes | str]:
    """Image id, number of boxes, and the features in base64. Raises ValueError."""
    fields = line.split(b"\t")
    if len(fields) != len(columns):
        raise ValueError(f"{len(fields)} columns, {len(columns)} expected: is the line truncated?")
    image_id = fields[0].strip().decode()
    if columns == COLUMNS:
        return image_id, tsv_files.integer(fields[1], "num_boxes"), fields[2].strip()
    value = _json(fields[1])
    missing = [name for name in ("num_boxes", "features") if not isinstance(value, dict) or name not in value]
    if missing:
        raise ValueError(f"the JSON has no {' and no '.join(missing)}")
    return image_id, tsv_files.integer(value["num_boxes"], "num_boxes"), value["features"]


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"column 2 is not JSON ({error}): is the line truncated?") from None


def _check_extent(values: npt.NDArray[np.float32]) -> None:
    """Refuse features whose last six values are not a box with its width and height."""
    box, extent = values[:, :4].astype(np.float64), values[:, 4:].astype(np.float64)
    allowed = TOLERANCE * max(1.0, float(np.abs(box).max(initial=0)))
    wrong = ~(np.abs(box[:, 2:] - box[:, :2] - extent) <= allowed).all(axis=1)
    if wrong.any():
        region = int(wrong.argmax())
        raise ValueError(
            f"region {region}: the last {BOX_VALUES} values of its feature are {values[region].tolist()}; x1 y1 x2 y2 "
            "and width and height expected"
        )


def _with_objects(record: Record, line: bytes) -> Record:
    """*record* with size, labels and scores of a line of predictions.tsv. Raises ValueError."""
    fields = line.split(b"\t")
    value = _json(fields[1]) if len(fields) == 2 else None
    if not (isinstance(value, dict) and isinstance(value.get("objects"), list)):
        raise ValueError("an image id and JSON with a list of objects expected: is the line truncated?")
    objects = value["objects"]
    if len(objects) != len(record.boxes):
        raise ValueError(f"{len(objects)} objects for {len(record.boxes)} features")
    try:
        labels = [str(item["class"]) for item in objects]
        scores = np.array([item["conf"] for item in objects], dtype=np.float32)
        rects = np.array([item["rect"] for item in objects], dtype=np.float64).reshape(len(objects), 4)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"an object without class, conf and rect of four numbers ({error})") from None
    size = None
    if "image_w" in value and "image_h" in value:
        size = tsv_files.integer(value["image_w"], "image_w"), tsv_files.integer(value["image_h"], "image_h")
        away = np.abs(rects / np.tile(np.maximum(size, 1), 2) - record.boxes)
        if away.max(initial=0) > TOLERANCE:
            region = int(away.max(axis=1).argmax())
            raise ValueError(
                f"object {region} is at {rects[region].tolist()} in an image of {size[0]} x {size[1]} pixels; the "
                f"feature at {record.boxes[region].tolist()} of it: another order?"
            )
    return replace(record, labels=labels, scores=scores, size=size)


def _check_whole(file: Path, size: int) -> None:
    """Check *file* against its .lineidx, if there is one: the last line must begin there, and end the file.

    This detects a download that was truncated between two lines.
    """
    index = file.with_suffix(".lineidx")
    if not index.is_file():
        return
    with open(index, "rb") as numbers:
        numbers.seek(max(index.stat().st_size - 64, 0))
        last = numbers.read().split()
    offset = int(last[-1]) if last and last[-1].isdigit() and len(last[-1]) < 19 else -1
    with open(file, "rb") as lines:
        lines.seek(max(offset - 1, 0))
        begins = offset == 0 or lines.read(1) == b"\n"
        lines.readline()
        ends = lines.tell() == size
    if not (0 <= offset < size and begins and ends):
        raise DataError(
            f"{file} has {size} bytes; by {index.name} its last line begins at byte {offset}, which does not fit: is "
            "one of them truncated, or of another file?"
        )
