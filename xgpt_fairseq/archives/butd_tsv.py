"""butd-tsv: bottom-up-attention features in TSV files, in the layouts of both extractors.

The arrays in a line are base64 of little-endian numbers. The extractors differ in their columns, and in the order of
width and height.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.archives import tsv as tsv_files
from xgpt_fairseq.archives.base import BoxKind, Pending, Record, RegionReader
from xgpt_fairseq.errors import DataError

# peteanderson80/bottom-up-attention
ORIGINAL = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
# airsplay/py-bottom-up-attention, LXMERT
LXMERT = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)
LAYOUTS = {len(ORIGINAL): ORIGINAL, len(LXMERT): LXMERT}
VOCABULARY = "objects_vocab.txt"


@dataclass(frozen=True)
class PendingLine:
    """One image: a line of a TSV file."""

    place: tsv_files.Place
    columns: tuple[str, ...]
    feature_dim: int
    class_names: tuple[str, ...]

    def where(self) -> str:
        return self.place.where()

    def decode(self) -> Record:
        try:
            return self._parse(self.place.read())
        except ValueError as error:
            raise DataError(f"{self.where()}: {error}") from None

    def _parse(self, line: bytes) -> Record:
        fields = line.split(b"\t")
        if len(fields) != len(self.columns):
            raise ValueError(f"{len(fields)} columns, {len(self.columns)} expected: is the line truncated?")
        values = dict(zip(self.columns, fields, strict=True))
        count = tsv_files.integer(values["num_boxes"], "num_boxes")
        names = ("img_w", "img_h") if self.columns == LXMERT else ("image_w", "image_h")
        width, height = (tsv_files.integer(values[name], name) for name in names)
        boxes = tsv_files.array(values["boxes"], "boxes", "<f4", (count, 4))
        _check_order(boxes, width, height, self.columns)
        features = tsv_files.array(values["features"], "features", "<f4", (count, self.feature_dim))
        record = Record(values[self.columns[0]].decode(), features, boxes, size=(width, height))
        if self.columns == LXMERT:
            scores = tsv_files.array(values["objects_conf"], "objects_conf", "<f4", (count,))
            labels = self._labels(tsv_files.array(values["objects_id"], "objects_id", "<i8", (count,)))
            record = replace(record, scores=scores, labels=labels)
        return record

    def _labels(self, classes: npt.NDArray[np.int64]) -> list[str]:
        if not self.class_names:
            return [str(number) for number in classes.tolist()]
        if classes.size and not (classes.min() >= 0 and classes.max() < len(self.class_names)):
            raise ValueError(
                f"objects_id {classes.max()}: {VOCABULARY} has the classes 0 to {len(self.class_names) - 1}"
            )
        return [self.class_names[number] for number in classes.tolist()]


class ButdTsvReader(RegionReader):
    """A TSV file, or a folder of them (`*.tsv`, `*.tsv.0`, …) read by name. Positions count bytes over all files."""

    name: ClassVar[str] = "butd-tsv"
    layout: ClassVar[str] = f"TSV with {len(ORIGINAL)} or {len(LXMERT)} columns, arrays in base64"
    unit: ClassVar[str] = "B"
    box_kind: BoxKind = "pixel"

    @classmethod
    def detect(cls, path: Path) -> str | None:
        files = _tsv_files(path)
        if not files:
            return None
        columns = LAYOUTS.get(len(tsv_files.first_columns(files[0])))
        return None if columns is None else f"{len(files)} TSV file(s) with the columns {', '.join(columns)}"

    def __init__(self, path: Path) -> None:
        self.files = _tsv_files(path)
        if not self.files:
            raise DataError(f"{path}: no TSV file ({self.layout})")
        self.sizes = [file.stat().st_size for file in self.files]
        self.end = sum(self.sizes)
        self.class_names: tuple[str, ...] = ()
        self.columns, self.feature_dim = self._look_at_first_line()
        vocabulary = self.files[0].with_name(VOCABULARY)
        if self.columns == LXMERT and vocabulary.exists():
            self.class_names = tuple(vocabulary.read_text(encoding="utf-8").splitlines())

    def _look_at_first_line(self) -> tuple[tuple[str, ...], int]:
        """The columns of all lines, as the first one has them, and the width of all features."""
        with open(self.files[0], "rb") as file:
            columns = LAYOUTS.get(number := len(file.readline().split(b"\t")))
        if columns is None:
            raise DataError(f"{self.files[0]}, line 1: {number} columns; {self.layout} expected")

        def width(line: bytes) -> int:
            fields = line.split(b"\t")
            if len(fields) != number:
                raise ValueError(f"{len(fields)} columns, {number} expected: is the line cut?")
            values = dict(zip(columns, fields, strict=True))
            count = tsv_files.integer(values["num_boxes"], "num_boxes")
            return tsv_files.feature_width(tsv_files.decoded(values["features"], "features"), count)

        return columns, tsv_files.of_first_line(self.files[0], width)

    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        for place, _, next_position in tsv_files.lines(self.files, position):
            yield PendingLine(place, self.columns, self.feature_dim, self.class_names), next_position

    def describe(self) -> dict[str, Any]:
        files = [{"name": file.name, "bytes": size} for file, size in zip(self.files, self.sizes, strict=True)]
        described: dict[str, Any] = {"format": self.name, "columns": list(self.columns), "files": files}
        if self.columns == LXMERT:
            described["labels"] = VOCABULARY if self.class_names else "class numbers"
        return described


def _tsv_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("*.tsv"), *path.glob("*.tsv.[0-9]*")])
    return [path] if path.is_file() else []


def _check_order(boxes: npt.NDArray[np.float32], width: int, height: int, columns: tuple[str, ...]) -> None:
    """Refuse an image whose boxes fit it only with width and height exchanged."""
    if len(boxes) == 0:
        return
    right, bottom = boxes[:, 2].max() - 1, boxes[:, 3].max() - 1
    if (right > width or bottom > height) and right <= height and bottom <= width:
        raise ValueError(
            f"the boxes reach to {boxes[:, 2].max():g} x {boxes[:, 3].max():g} and fit {height} x {width}, not "
            f"{width} x {height}: columns 2 and 3 should be {columns[1]} and {columns[2]}, in this order"
        )
