"""Which of the photos a process takes, where several processes or machines share an extraction."""

from __future__ import annotations

import itertools
import re
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
            (SLURM_ARRAY_TASK_ID, …_MIN, …_MAX, …_STEP, …_COUNT), each task is a part, in their order; where
            *num_shards* is given, a task is the part of its own number, so that some of the tasks can be run again. Of
            processes that torchrun starts (RANK and WORLD_SIZE), each is a part; of an array whose tasks start
            torchrun, each process of each task.

    Raises:
        DataError: only one of the two is given and the environment doesn't say the other, or they don't fit; or an
            array has gaps, as one that runs some tasks again, so that it doesn't say of how many parts they are.
    """
    if shard_id is None and num_shards == 1:
        return None
    index, count, said_by = shard_id, num_shards, "--shard-id"
    if shard_id is None:
        index, found, said_by = _of_environment(environment, num_shards)
        if num_shards is not None and not said_by:
            raise DataError(f"--num-shards {num_shards}: which of them? name it by --shard-id")
        count = found if num_shards is None else num_shards
    if count is None:
        raise DataError(f"--shard-id {shard_id}: of how many? name the number by --num-shards")
    if index is None or not 0 <= index < count:
        raise DataError(f"shard {index} of {count} ({said_by}): shards are numbered from 0 to {count - 1}")
    return None if count == 1 else Shard(index, count, said_by)


def _of_environment(environment: Mapping[str, str], num_shards: int | None) -> tuple[int, int, str]:
    """Index, count, and the names of the variables that say them; 0, 1 and nothing where none do."""

    def number(name: str, default: int) -> int:
        value = environment.get(name) or str(default)
        if not value.lstrip("-").isdigit():
            raise DataError(f"the variable {name} is {value!r}; a number is expected")
        return int(value)

    index, count, names = 0, 1, []
    torchrun = bool(environment.get("RANK") and environment.get("WORLD_SIZE"))
    world = number("WORLD_SIZE", 1) if torchrun else 1
    if environment.get("SLURM_ARRAY_TASK_ID"):
        index, count = number("SLURM_ARRAY_TASK_ID", 0), number("SLURM_ARRAY_TASK_COUNT", 1)
        first, step = number("SLURM_ARRAY_TASK_MIN", 0), max(number("SLURM_ARRAY_TASK_STEP", 1), 1)
        last = number("SLURM_ARRAY_TASK_MAX", first + (count - 1) * step)
        if num_shards is None:
            if (last - first) // step + 1 != count:
                raise DataError(
                    f"the array has {count} tasks with gaps between {first} and {last}: of how many shards? Name the "
                    "number by --num-shards; a task is then the shard of its own number"
                )
            index = (index - first) // step
        elif (last + 1) * world > num_shards:  # before any task begins: else all would end well but the last
            processes = f", {world} for each task" if world > 1 else ""
            by_hand = ", or give --shard-id $((SLURM_ARRAY_TASK_ID - 1))" if world == 1 else ""
            raise DataError(
                f"the array has a task {last}; with --num-shards {num_shards}, a task is the shard of its own number, "
                f"from 0 to {num_shards - 1}{processes}: begin the array with 0{by_hand}"
            )
        names.append("SLURM_ARRAY_TASK_ID")
    if torchrun:
        index, count = index * world + number("RANK", 0), count * world
        names.append("RANK")
    return index, count, " and ".join(names)


def check_parts_of_store(store: Path, shard: Shard | None) -> None:
    """Refuse to begin other parts of the region store *store* than those that are there.

    Args:
        shard: the part that is to be made; None: the whole store, where the user did not ask for one process.

    Raises:
        DataError: there are parts, finished or not, of other numbers of parts, and none of this one's.
    """
    place = parts_folder(store)
    _check_parts(place, "", "", shard, str(place))


def check_parts_of_file(path: Path, shard: Shard | None) -> None:
    """Refuse to begin other parts of the file *path* than those that are there: see `check_parts_of_store`."""
    names = f"{path.stem}.*-of-*{path.suffix}"
    _check_parts(path.parent, f"{path.stem}.", path.suffix, shard, str(path.with_name(names)))


def _check_parts(folder: Path, prefix: str, suffix: str, shard: Shard | None, what: str) -> None:
    """See `check_parts_of_store`. Parts are *folder*/*prefix*I-of-N*suffix*, and *what* for the message."""
    part = re.compile(rf"(\.?){re.escape(prefix)}(\d+)-of-(\d+){re.escape(suffix)}(\.partial|\.unreadable\.txt)?")
    there: dict[int, set[int]] = {}
    unfinished: set[tuple[int, int]] = set()
    for name in [path.name for path in folder.iterdir()] if folder.is_dir() else []:
        if (found := part.fullmatch(name)) is not None and bool(found[1]) == (found[4] == ".partial"):
            index, count = int(found[2]), int(found[3])
            there.setdefault(count, set()).add(index)
            if found[1]:
                unfinished.add((index, count))
    if not there or (shard is not None and shard.count in there):
        return
    count = max(there, key=lambda each: len(there[each]))
    rest = (index for index in range(count) if index not in there[count] or (index, count) in unfinished)
    left = list(itertools.islice(rest, 11))
    some = f"{', '.join(map(str, left[:10]))}{' …' if len(left) > 10 else ''}"
    own = "the whole, by one process" if shard is None else f"shard {shard.index} of {shard.count} ({shard.said_by})"
    raise DataError(
        f"{what}: there are parts of {count} shards, and this run would begin {own}. To go on with those, add "
        f"--num-shards {count} --shard-id I ({f'not finished: {some}' if left else 'all are finished'}); to begin "
        f"anew, remove them{', or add --num-shards 1' if shard is None else ''}"
    )


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

    Of those behind the part before it, and with one for each part behind it, so that no part is empty.

    Raises:
        DataError: there are fewer starts than parts. *what* they are is for the message.
    """
    if len(starts) < shard.count:
        raise DataError(f"{what} are too few for {shard.count} shards")
    edges, place = [0], 0
    for part in range(1, shard.count):
        wanted = part * count / shard.count
        after = int(np.searchsorted(starts, wanted))
        near = [at for at in (after - 1, after) if 0 <= at < len(starts)]
        nearest = min(near, key=lambda at: abs(int(starts[at]) - wanted))
        place = min(max(nearest, place + 1), len(starts) - (shard.count - part))
        edges.append(int(starts[place]))
    edges.append(count)
    return range(edges[shard.index], edges[shard.index + 1])
