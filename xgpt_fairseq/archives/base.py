"""Interface of the readers of region archives.

A reader reads one layout. It walks the archive in a fixed order and yields *pending* records: small, picklable objects
that locate a record, so that worker processes can decode it.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError

BoxKind = Literal["pixel", "normalised", "unknown"]


@dataclass(frozen=True)
class Record:
    """The regions of one image as in the archive. The store's writer checks more than the layout.

    features (n, D) float; boxes (n, 4) x1 y1 x2 y2; scores (n,) float; labels n names; size width and height in pixels.
    """

    image_id: str
    features: npt.NDArray[np.floating[Any]]
    boxes: npt.NDArray[np.floating[Any]]
    scores: npt.NDArray[np.floating[Any]] | None = None
    labels: list[str] | None = None
    size: tuple[int, int] | None = None


class Pending(Protocol):
    """A record that was found but not yet decoded."""

    def decode(self) -> Record:
        """Read and decode the record. Raises DataError that names the file and the position."""
        ...

    def where(self) -> str:
        """The file and the position, for error messages."""
        ...


class RegionReader(ABC):
    """Reads one layout of region archives.

    Class attributes:
        name: the format's name for `--format`.
        layout: a short description of the layout.
        unit: unit of positions; "B" for bytes.

    Attributes:
        box_kind: the boxes' unit, if the layout determines it.
        end: the position after the last record.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    unit: ClassVar[str]
    box_kind: BoxKind
    end: int

    @classmethod
    @abstractmethod
    def detect(cls, path: Path) -> str | None:
        """Describe the archive at *path* if it has this layout, else None. Reads only a few names and bytes."""

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Open the archive. Raises DataError if it does not have this layout."""

    @abstractmethod
    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        """The records from *position* on (0 is the start), each with the position after it."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What identifies the archive: it is kept in `store.json`, and must be the same when an import is resumed."""

    def iterate(self, position: int = 0) -> Iterator[tuple[Record, int]]:
        """The decoded records from *position* on, each with the position after it."""
        for pending, next_position in self.pending(position):
            yield pending.decode(), next_position

    def close(self) -> None:  # noqa: B027 (most readers leave nothing open)
        """Close the files that are still open in this process."""


class IndexedRegionReader(RegionReader):
    """A reader of an archive with a list of its images: positions count images, in the order of `names`.

    Attributes:
        names: the images' names, set when the archive is opened; their type depends on the reader.
    """

    unit: ClassVar[str] = "image"
    names: Sequence[Any]

    @abstractmethod
    def find(self, name: Any) -> Pending:
        """The record of one of `names`."""

    def about(self) -> dict[str, Any]:
        """What identifies the archive besides its names."""
        return {}

    def written(self, name: Any) -> str:
        """One of `names` as text."""
        return str(name)

    @property
    def end(self) -> int:  # type: ignore[override]
        return len(self.names)

    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        for index in range(position, self.end):
            yield self.find(self.names[index]), index + 1

    def describe(self) -> dict[str, Any]:
        return {"format": self.name, **self.about(), "names_sha256": names_digest(map(self.written, self.names))}


def folders_in(path: Path) -> list[Path]:
    """*path* and the folders in it, sorted; none if it is not a folder. Does not touch its files, which can be many."""
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        return [path, *sorted(Path(entry.path) for entry in entries if entry.is_dir())]


def check_boxes(boxes: npt.NDArray[Any], count: int, where: str) -> None:
    """Raise DataError unless *boxes* are numbers (*count*, 4)."""
    if boxes.shape != (count, 4) or boxes.dtype.kind not in "fiu":
        raise DataError(
            f"{where}: boxes are {boxes.dtype} of shape {boxes.shape}; {count} regions have features, so numbers of "
            f"({count}, 4) expected"
        )


def names_digest(names: Iterable[str]) -> str:
    """A digest of a list of names. Positions that count names are valid only for the same list."""
    digest = hashlib.sha256()
    for number, name in enumerate(names):
        digest.update(b"\n" * (number > 0) + name.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
