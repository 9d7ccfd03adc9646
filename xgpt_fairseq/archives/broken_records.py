"""Records of an archive that break the rules, and are left out of the region store (--skip-broken)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path

from xgpt_fairseq.archives.base import Pending, Record, RegionReader
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.resumable import partial_path
from xgpt_fairseq.regions.left_out import LeftOut
from xgpt_fairseq.regions.validation import check_features
from xgpt_fairseq.regions.writer import RegionWriter

SKIP_HINT = "(--skip-broken N leaves out up to N broken records)"


class BrokenRecords:
    """Records that are left out.

    Args:
        output: the store, beside which they are listed.
        writer: what writes the store. What it has not made safe is read again, broken records, too.
        skip_broken: how many there may be (--skip-broken).

    Raises:
        DataError: an interrupted import has left out more.
    """

    def __init__(self, output: Path, writer: RegionWriter, skip_broken: int) -> None:
        self._list = list_path(output)
        self._skip_broken = skip_broken
        self._left_out = LeftOut(partial_path(writer.path) / "broken.jsonl", writer.position)
        if self.allowed < 0:
            _, where, reason = self._left_out.found[-1]
            raise self._too_many(f"{where}: {reason}")

    def __len__(self) -> int:
        return len(self._left_out)

    @property
    def allowed(self) -> int:
        """How many more there may be."""
        return self._skip_broken - len(self)

    def add(self, item: Pending, next_position: int, error: str) -> None:
        """Leave out a record.

        Raises:
            DataError: there may be no more.
        """
        where = item.where()
        reason = error.removeprefix(f"{where}: ")
        if self._skip_broken:
            # An interrupted import reads on behind the position of an image: what lies before it has been listed.
            self._left_out.add([(next_position - 1, where, reason)])
        if not self._skip_broken or self.allowed < 0:
            raise self._too_many(error)

    def write_list(self) -> None:
        """Write STORE.broken.txt, or take away an old one."""
        self._left_out.write_list(self._list)

    def _too_many(self, error: str) -> DataError:
        if not self._skip_broken:
            return DataError(f"{error} {SKIP_HINT}")
        self.write_list()
        return DataError(
            f"{error} (broken record number {len(self)}, more than --skip-broken {self._skip_broken} allows; "
            f"{self._list} lists them: to go on without them, allow more)"
        )


def list_path(output: Path) -> Path:
    output = output.resolve()
    return output.with_name(f"{output.name}.broken.txt")


def decode(item: Pending) -> Record | str:
    """The record; or what is wrong with it."""
    try:
        return item.decode()
    except DataError as error:
        return str(error)


def decode_as_stored(item: Pending, width: int) -> Record | str:
    """The record, with features (n, *width*) in the store's type, float16; or what is wrong with it.

    For worker processes: the conversion takes longer than the rest of what the writer does, and half as many bytes go
    from process to process. Features that the store refuses stay as they are, so that the writer says what is wrong.
    """
    record = decode(item)
    if isinstance(record, Record):
        with contextlib.suppress(DataError):
            features = check_features(record.features, width, record.image_id)
            record = dataclasses.replace(record, features=features)
    return record


def sample_records(reader: RegionReader, count: int, skip_broken: int) -> list[Record]:
    """The first *count* records that can be decoded, or as many as there are.

    Raises:
        DataError: a record is broken, and none may be or there is no other.
    """
    found: list[Record] = []
    error = ""
    for item, _ in itertools.islice(reader.pending(0), count + skip_broken):
        record = decode(item)
        if isinstance(record, Record):
            found.append(record)
        else:
            error = error or record
        if len(found) == count or (error and not skip_broken):
            break
    if error and not (skip_broken and found):
        raise DataError(f"{error} {SKIP_HINT}")
    return found
