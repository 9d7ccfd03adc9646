"""Which of the photos a process takes, where several processes or machines share an extraction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_list import container_starts
from xgpt_fairseq.vision.photos import PhotoFile


@dataclass(frozen=True)
class Shard:
    """One of *count* parts of the photos, the *index*-th, from 0; *said_by*: what named it."""

    index: int
    count: int
    said_by: str

    def output(self, store: Path) -> Path:
        """The folder of this part of the region store *store*."""
        return parts_folder(store) / f"{self.index}-of-{self.count}"

    def file(self, path: Path) -> Path:
        """The file of this part of the file *path*: `captions.03-of-64.jsonl`, so that the parts are sorted."""
        number = str(self.index).rjust(len(str(self.count - 1)), "0")
        return path.with_name(f"{path.stem}.{number}-of-{self.count}{path.suffix}")

    def files(self, path: Path) -> list[Path]:
        """The files of all parts of the file *path*."""
        return [Shard(index, self.count, "").file(path) for index in range(self.count)]


def parts_folder(store: Path) -> Path:
    """The folder of the parts of the region store *store*."""
    return store.with_name(f"{store.name}.parts")


def chosen_shard(num_shards: int | None, shard_id: int | None, environment: Mapping[str, str]) -> Shard | None:
    """The part that this process takes; None: all photos.

    Args:
        num_shards, shard_id: as the user gives them; None: as the environment says. Of a SLURM array
            (SLURM_ARRAY_TASK_ID, …_MIN, …_STEP, …_COUNT), each task is a part; of processes that torchrun starts (RANK
            and WORLD_SIZE), each is; of an array whose tasks start torchrun, each process of each task.

    Raises:
        DataError: only one of the two is given and the environment doesn't say the other, or they don't fit.
    """
    if shard_id is None and num_shards == 1:
        return None
    index, count, said_by = shard_id, num_shards, "--shard-id"
    if shard_id is None:
        index, found, said_by = _of_environment(environment)
        if num_shards is not None and not said_by:
            raise DataError(f"--num-shards {num_shards}: which of them? name it by --shard-id")
        count = found if num_shards is None else num_shards
    if count is None:
        raise DataError(f"--shard-id {shard_id}: of how many? name the number by --num-shards")
    if index is None or not 0 <= index < count:
        raise DataError(f"shard {index} of {count} ({said_by}): shards are numbered from 0 to {count - 1}")
    return None if count == 1 else Shard(index, count, said_by)


def _of_environment(environment: Mapping[str, str]) -> tuple[int, int, str]:
    """Index, count, and the names of the variables that say them; 0, 1 and nothing where none do."""

    def number(name: str, default: int) -> int:
        value = environment.get(name) or str(default)
        if not value.lstrip("-").isdigit():
            raise DataError(f"the variable {name} is {value!r}; a number is expected")
        return int(value)

    index, count, names = 0, 1, []
    if environment.get("SLURM_ARRAY_TASK_ID"):
        first, step = number("SLURM_ARRAY_TASK_MIN", 0), number("SLURM_ARRAY_TASK_STEP", 1)
        index = (number("SLURM_ARRAY_TASK_ID", 0) - first) // max(step, 1)
        count = number("SLURM_ARRAY_TASK_COUNT", 1)
        names.append("SLURM_ARRAY_TASK_ID")
    if environment.get("RANK") and environment.get("WORLD_SIZE"):
        world = number("WORLD_SIZE", 1)
        index, count = index * world + number("RANK", 0), count * world
        names.append("RANK")
    return index, count, " and ".join(names)


def shard_range(files: Sequence[PhotoFile], shard: Shard, multiple: int) -> range:
    """The places in *files* of the photos of *shard*.

    Parts are contiguous, nearly equal, and begin at multiples of *multiple* (so that the same photos share a batch as
    in one run) or, where tars or tables are read, with one of them, so that each is read by one process.

    Raises:
        DataError: there are too few photos, or tars, for so many parts.
    """
    starts = container_starts(files)
    contained = len(starts) < len(files)  # else each photo is a file
    if not contained:
        starts = np.arange(0, len(files), multiple)
    what = "tars and tables" if contained else f"groups of {multiple} photos" if multiple > 1 else "photos"
    return _part(starts, len(files), shard, f"{len(files)} photos, in {len(starts)} {what},")


def row_range(count: int, shard: Shard, multiple: int) -> range:
    """The places of *shard* among *count* images: contiguous, nearly equal parts, which begin at multiples.

    Raises:
        DataError: there are too few images for so many parts.
    """
    return _part(np.arange(0, count, multiple), count, shard, f"{count} images, in groups of {multiple},")


def _part(starts: npt.NDArray[np.int64], count: int, shard: Shard, what: str) -> range:
    """The part of *shard* among *count* things, which begins where one of *starts* is nearest to equal parts.

    Raises:
        DataError: a part has none. *what* they are is for the message.
    """
    edges = [0]
    for part in range(1, shard.count):
        wanted = part * count / shard.count
        after = int(np.searchsorted(starts, wanted))
        edges.append(min(starts[max(after - 1, 0) : after + 1].tolist(), key=lambda at: abs(at - wanted)))
    edges.append(count)
    if any(first >= last for first, last in itertools.pairwise(edges)):
        raise DataError(f"{what} are too few for {shard.count} shards")
    return range(edges[shard.index], edges[shard.index + 1])
