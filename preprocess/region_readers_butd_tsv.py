"""butd-tsv: bottom-up-attention features in TSV files, in the layouts of both extractors.

The arrays in a line are base64 of little-endian numbers. The extractors differ in their columns, and in which of
width and height comes first.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from region_readers_base import BoxKind, Pending, Record, RegionReader

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

# All tabs of a line are in front of the features, in its first few thousand bytes.
FIRST_LINE_BYTES = 1 << 16


@dataclass(frozen=True)
class PendingLine:
    """One image: a line of a TSV file, by its place, so that a worker reads it itself."""

    file: Path
    offset: int
    length: int
    columns: tuple[str, ...]
    feature_dim: int
    class_names: tuple[str, ...]

    def where(self) -> str:
        return f"{self.file}, line {_line_number(self.file, self.offset)}"

    def decode(self) -> Record:
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            line = file.read(self.length)
        try:
            return self._parse(line)
        except ValueError as error:
            raise DataError(f"{self.where()}: {error}") from None

    def _parse(self, line: bytes) -> Record:
        fields = line.rstrip(b"\r\n").split(b"\t")
        if len(fields) != len(self.columns):
            raise ValueError(f"{len(fields)} columns, {len(self.columns)} expected: is the line cut?")
        values = dict(zip(self.columns, fields, strict=True))
        count = _integer(values, "num_boxes")
        if self.columns == LXMERT:
            width, height = _integer(values, "img_w"), _integer(values, "img_h")
        else:
            width, height = _integer(values, "image_w"), _integer(values, "image_h")
        boxes = _array(values, "boxes", "<f4", (count, 4))
        _check_order(boxes, width, height, self.columns)
        features = _array(values, "features", "<f4", (count, self.feature_dim))
        record = Record(values[self.columns[0]].decode(), features, boxes, size=(width, height))
        if self.columns == LXMERT:
            scores = _array(values, "objects_conf", "<f4", (count,))
            labels = self._labels(_array(values, "objects_id", "<i8", (count,)))
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
        with open(files[0], "rb") as file:
            columns = LAYOUTS.get(file.readline(FIRST_LINE_BYTES).count(b"\t") + 1)
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
        """The columns of all lines and the width of all features, which the first line tells."""
        with open(self.files[0], "rb") as file:
            fields = file.readline().rstrip(b"\r\n").split(b"\t")
        columns = LAYOUTS.get(len(fields))
        if columns is None:
            raise DataError(f"{self.files[0]}, line 1: {len(fields)} columns; {self.layout} expected")
        values = dict(zip(columns, fields, strict=True))
        try:
            count = _integer(values, "num_boxes")
            data_bytes = len(_decoded(values, "features"))
        except ValueError as error:
            raise DataError(f"{self.files[0]}, line 1: {error}") from None
        width, rest = divmod(data_bytes, 4 * max(count, 1))
        if rest or not width:
            raise DataError(
                f"{self.files[0]}, line 1: column features has {data_bytes} bytes, not a whole number of float32 for "
                f"each of {count} boxes: is the line cut?"
            )
        return columns, width

    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        start = 0
        for path, size in zip(self.files, self.sizes, strict=True):
            if position < start + size:
                with open(path, "rb", buffering=1 << 20) as file:
                    file.seek(max(position - start, 0))
                    offset = file.tell()
                    for line in file:
                        if line.strip():
                            pending = PendingLine(
                                path, offset, len(line), self.columns, self.feature_dim, self.class_names
                            )
                            yield pending, start + offset + len(line)
                        offset += len(line)
            start += size

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


def _line_number(path: Path, offset: int) -> int:
    """The line that begins at *offset*. Only errors ask, so that the file is read again for it."""
    number = 1
    with open(path, "rb") as file:
        while offset > 0 and (chunk := file.read(min(offset, 1 << 24))):
            number += chunk.count(b"\n")
            offset -= len(chunk)
    return number


def _integer(values: dict[str, bytes], column: str) -> int:
    try:
        return int(values[column])
    except ValueError:
        raise ValueError(f"column {column} is {values[column][:40]!r}, a whole number expected") from None


def _decoded(values: dict[str, bytes], column: str) -> bytes:
    try:
        return binascii.a2b_base64(values[column], strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"column {column} is not base64 ({error}): is the line cut?") from None


def _array(values: dict[str, bytes], column: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    data = _decoded(values, column)
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise ValueError(
            f"column {column} has {len(data)} bytes, {expected} expected for {np.dtype(dtype).name} {shape}: "
            "is the line cut?"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _check_order(boxes: npt.NDArray[np.float32], width: int, height: int, columns: tuple[str, ...]) -> None:
    """Refuse an image whose boxes fit it only when width and height change places."""
    if len(boxes) == 0:
        return
    right, bottom = boxes[:, 2].max() - 1, boxes[:, 3].max() - 1
    if (right > width or bottom > height) and right <= height and bottom <= width:
        raise ValueError(
            f"the boxes reach to {boxes[:, 2].max():g} x {boxes[:, 3].max():g} and fit {height} x {width}, not "
            f"{width} x {height}: columns 2 and 3 should be {columns[1]} and {columns[2]}, in this order"
        )
