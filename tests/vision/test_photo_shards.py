"""Which photos a process takes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_shards import Shard, check_parts_of_file, check_parts_of_store, chosen_shard, shard_range
from xgpt_fairseq.vision.photos import PhotoFile

ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "9"}
ARRAY |= {"SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "5"}
SOME = {"SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "40", "SLURM_ARRAY_TASK_COUNT": "3"}  # 3,17,40
RANKS = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ((None, None), {}, None),
        ((1, None), {}, None),
        ((1, 0), {}, None),
        ((8, 3), {}, Shard(3, 8, "--shard-id")),
        ((8, 3), ARRAY, Shard(3, 8, "--shard-id")),
        ((1, None), ARRAY, None),  # an array whose tasks are something else
        ((None, None), ARRAY, Shard(3, 5, "SLURM_ARRAY_TASK_ID")),
        ((None, None), RANKS, Shard(1, 4, "RANK")),
        ((None, None), {"RANK": "0", "WORLD_SIZE": "1"}, None),
        ((None, None), {**ARRAY, **RANKS}, Shard(13, 20, "SLURM_ARRAY_TASK_ID and RANK")),
        ((64, None), ARRAY, Shard(7, 64, "SLURM_ARRAY_TASK_ID")),  # whatever other tasks there are
        ((64, None), {"SLURM_ARRAY_TASK_ID": "17", **SOME}, Shard(17, 64, "SLURM_ARRAY_TASK_ID")),
        ((256, None), {"SLURM_ARRAY_TASK_ID": "17", **SOME, **RANKS}, Shard(69, 256, "SLURM_ARRAY_TASK_ID and RANK")),
    ],
)
def test_the_shard(given: tuple[int | None, int | None], environment: dict[str, str], expected: Shard | None) -> None:
    assert chosen_shard(*given, environment) == expected


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ((8, None), {}, "--num-shards 8: which of them. name it by --shard-id"),
        ((None, 3), {}, "--shard-id 3: of how many. name the number by --num-shards"),
        ((8, 8), {}, "shard 8 of 8 .--shard-id.: shards are numbered from 0 to 7"),
        ((8, -1), {}, "shards are numbered from 0 to 7"),
        ((None, None), {"SLURM_ARRAY_TASK_ID": "3", **SOME}, "the array has 3 tasks with gaps between 3 and 40: of"),
        ((9, None), ARRAY, r"has a task 9; .* from 0 to 8: begin the array with 0, or give --shard-id \$\(\("),
        ((9, None), {**ARRAY, **RANKS}, "has a task 9; .* from 0 to 8, 4 for each task: begin the array with 0$"),
        ((None, None), {"RANK": "one", "WORLD_SIZE": "2"}, "the variable RANK is 'one'; a number is expected"),
    ],
)
def test_what_does_not_fit(given: tuple[int | None, int | None], environment: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        chosen_shard(*given, environment)


def test_parts_of_another_number_are_not_begun(tmp_path: Path) -> None:
    store, lines = tmp_path / "store", tmp_path / "c.jsonl"
    parts = [f"{index}-of-12" for index in range(12)]
    of_store = [*parts[:3], f".{parts[3]}.partial", f"{parts[4]}.unreadable.txt", *parts[5:7], *parts[8:], "photos"]
    for name in of_store:
        (tmp_path / "store.parts" / name).mkdir(parents=True)
    (tmp_path / "c.txt").touch()
    (tmp_path / "d.0-of-3.jsonl").touch()
    for index in range(11):
        Shard(index, 12, "").file(lines).touch()
    (tmp_path / ".c.07-of-12.jsonl.partial").mkdir()
    for shard in (Shard(3, 12, ""), Shard(0, 12, "")):
        check_parts_of_store(store, shard)
        check_parts_of_file(lines, shard)
    check_parts_of_store(tmp_path / "other", None)
    check_parts_of_file(tmp_path / "other.jsonl", None)
    begun = re.escape("shard 0 of 3 (RANK). To go on with those, add --num-shards 12 --shard-id I (not finished: ")
    for shard, message in ((Shard(0, 3, "RANK"), begun), (None, r"begin the whole, by one process\. .*-shards 1$")):
        with pytest.raises(DataError, match=rf"store\.parts: there are parts of 12 shards.*{message}") as said:
            check_parts_of_store(store, shard)
        with pytest.raises(DataError, match=rf"c\.\*-of-\*\.jsonl: there are .*{message}") as found:
            check_parts_of_file(lines, shard)
    assert "(not finished: 3, 7);" in str(said.value)
    assert "(not finished: 7, 11);" in str(found.value)


@given(st.integers(1, 300), st.integers(2, 12), st.sampled_from([1, 4]))
def test_ranges_are_a_partition(photos: int, count: int, multiple: int) -> None:
    files = [PhotoFile(Path(str(number))) for number in range(photos)]
    if -(-photos // multiple) < count:
        with pytest.raises(DataError, match="too few"):
            shard_range(files, Shard(0, count, ""), multiple)
        return
    ranges = [shard_range(files, Shard(index, count, ""), multiple) for index in range(count)]
    assert [place for part in ranges for place in part] == list(range(photos))
    assert all(part.start % multiple == 0 for part in ranges)
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 2 * multiple


def tars_of(sizes: list[int]) -> list[PhotoFile]:
    return [PhotoFile(Path("x"), tar=Path(str(tar))) for tar, size in enumerate(sizes) for _ in range(size)]


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.integers(2, 12))
def test_tars_stay_whole(sizes: list[int], count: int) -> None:
    files = tars_of(sizes)
    if len(sizes) < count:
        with pytest.raises(DataError, match="too few"):
            shard_range(files, Shard(0, count, ""), 1)
        return
    ranges = [shard_range(files, Shard(index, count, ""), 1) for index in range(count)]
    tars = [{files[place].tar for place in part} for part in ranges]
    assert all(tars) and all(not (one & other) for one, other in itertools.combinations(tars, 2))
    assert [place for part in ranges for place in part] == list(range(len(files)))


@pytest.mark.parametrize("sizes", [[10] * 331 + [1], [1] + [100] * 7, [5, 5, 5, 5, 5, 5, 5, 1], [1, 1, 1, 1000]])
def test_a_tar_for_each_part(sizes: list[int]) -> None:
    files, count = tars_of(sizes), len(sizes)
    assert [len(shard_range(files, Shard(index, count, ""), 1)) for index in range(count)] == sizes


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.integers(2, 12))
def test_unfinished_extractions_of_earlier_versions_keep_their_parts(sizes: list[int], count: int) -> None:
    """Where the start nearest to equal parts left none empty, as it had to, the edges are the same."""
    total, starts = sum(sizes), [sum(sizes[:tar]) for tar in range(len(sizes))]
    edges = [0, *(min(starts, key=lambda at: abs(at - part * total / count)) for part in range(1, count)), total]
    assume(all(one < other for one, other in itertools.pairwise(edges)))
    ranges = [shard_range(tars_of(sizes), Shard(index, count, ""), 1) for index in range(count)]
    assert [part.start for part in ranges] == edges[:-1]
