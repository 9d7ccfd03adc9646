"""Which photos a process takes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photo_shards import Shard, chosen_shard, shard_range
from xgpt_fairseq.vision.photos import PhotoFile

ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "9"}
ARRAY |= {"SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "5"}
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
        ((2, None), ARRAY, "shard 3 of 2 .SLURM_ARRAY_TASK_ID.: shards are numbered from 0 to 1"),
        ((None, None), {"RANK": "one", "WORLD_SIZE": "2"}, "the variable RANK is 'one'; a number is expected"),
    ],
)
def test_what_does_not_fit(given: tuple[int | None, int | None], environment: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        chosen_shard(*given, environment)


@given(st.integers(1, 300), st.integers(2, 12), st.sampled_from([1, 4]))
def test_ranges_are_a_partition(photos: int, count: int, multiple: int) -> None:
    files = [PhotoFile(Path(str(number))) for number in range(photos)]
    try:
        ranges = [shard_range(files, Shard(index, count, ""), multiple) for index in range(count)]
    except DataError:
        assert photos < 2 * multiple * count  # few for so many
        return
    assert [place for part in ranges for place in part] == list(range(photos))
    assert all(part.start % multiple == 0 for part in ranges)
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 2 * multiple


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.integers(2, 5))
def test_tars_stay_whole(sizes: list[int], count: int) -> None:
    files = [PhotoFile(Path("x"), tar=Path(str(tar))) for tar, size in enumerate(sizes) for _ in range(size)]
    try:
        ranges = [shard_range(files, Shard(index, count, ""), 1) for index in range(count)]
    except DataError:
        assert len(sizes) < count or max(sizes) * count > sum(sizes)
        return
    tars = [{files[place].tar for place in part} for part in ranges]
    assert all(not (one & other) for one, other in itertools.combinations(tars, 2))
    assert sum(map(len, ranges)) == len(files)
