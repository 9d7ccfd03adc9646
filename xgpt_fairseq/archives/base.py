"""What every reader of a region archive has in common.

A reader knows one layout. It walks the archive in a fixed order and hands out *pending* records: small, picklable
objects that say where a record lies, so that worker processes can do the decoding.
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
    """The regions of one image, as the archive has them; checks beyond the layout are the writer's.

    features (n, D) float; boxes (n, 4) x1 y1 x2 y2; scores (n,) float; labels n names; size width and height in pixels.
    """

    image_id: str
    features: npt.NDArray[np.floating[Any]]
    boxes: npt.NDArray[np.floating[Any]]
    scores: npt.NDArray[np.floating[Any]] | None = None
    labels: list[str] | None = None
    size: tuple[int, int] | None = None


class Pending(Protocol):
    """A record that has been found but not decoded."""

    def decode(self) -> Record:
        """Read and decode the record. Raises DataError naming the file and the place in it."""
        ...

    def where(self) -> str:
        """The file and the place in it, for error messages."""
        ...


class RegionReader(ABC):
    """Reads one layout of region archives.

    Class attributes:
        name: of the format, as `--format` takes it.
        layout: what the archive looks like, in a few words.
        unit: what positions count; "B" for bytes.

    Attributes:
        box_kind: what the archive's boxes are measured in, as far as the layout tells.
        end: the position behind the last record.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    unit: ClassVar[str]
    box_kind: BoxKind
    end: int

    @classmethod
    @abstractmethod
    def detect(cls, path: Path) -> str | None:
        """What of this layout lies at *path*, in words, or None. Looks at a few names and bytes, not at everything."""

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Open the archive. Raises DataError when it is not of this layout."""

    @abstractmethod
    def pending(self, position: int) -> Iterator[tuple[Pending, int]]:
        """The records from *position* on (0 is the start), each with the position behind it."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What identifies the archive: goes into `store.json`, and a resumed import must find it unchanged."""

    def iterate(self, position: int = 0) -> Iterator[tuple[Record, int]]:
        """The decoded records from *position* on, each with the position behind it."""
        for pending, next_position in self.pending(position):
            yield pending.decode(), next_position

    def close(self) -> None:  # noqa: B027 (most readers leave nothing open)
        """Close the files that reading has left open in this process."""


class IndexedRegionReader(RegionReader):
    """A reader of an archive that lists its images: positions count images, in the order of `names`.

    Attributes:
        names: of the images, set when the archive is opened; what they are is the reader's.
    """

    unit: ClassVar[str] = "image"
    names: Sequence[Any]

    @abstractmethod
    def find(self, name: Any) -> Pending:
        """The record of one of `names`."""

    def about(self) -> dict[str, Any]:
        """What else than its names identifies the archive."""
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
    """*path* and the folders in it, sorted; none if it is no folder. Its files, which can be many, are not touched."""
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        return [path, *sorted(Path(entry.path) for entry in entries if entry.is_dir())]


def check_boxes(boxes: npt.NDArray[Any], count: int, where: str) -> None:
    """Check that *boxes* are numbers (*count*, 4). Raises DataError."""
    if boxes.shape != (count, 4) or boxes.dtype.kind not in "fiu":
        raise DataError(
            f"{where}: boxes are {boxes.dtype} of shape {boxes.shape}; {count} regions have features, so numbers of "
            f"({count}, 4) expected"
        )


def names_digest(names: Iterable[str]) -> str:
    """What identifies a list of names, where positions count them: another list makes positions mean something else."""
    digest = hashlib.sha256()
    for number, name in enumerate(names):
        digest.update(b"\n" * (number > 0) + name.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
