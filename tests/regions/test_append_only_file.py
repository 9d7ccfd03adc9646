"""Arrays that grow row by row, cut back and resumed, as numpy reads them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.append_only_file import (
    HEADER_BYTES,
    AppendOnlyArray,
    AppendOnlyLines,
    AppendOnlyShards,
    npy_header,
)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("<f2", (0, 2048)), ("<f2", (10**12, 2048)), ("|S200", (7,)), ("<i8", (10**15,))]
)
def test_headers_are_numpys_and_of_one_length(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    header = npy_header(dtype, shape)
    assert len(header) == 128
    (tmp_path / "x.npy").write_bytes(header)
    with open(tmp_path / "x.npy", "rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(dtype))


def test_a_header_that_is_too_long() -> None:
    with pytest.raises(AssertionError, match=r"header of .* bytes for"):
        npy_header("<f2", (10**40,) * 5)


@examples(30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(st.integers(0, 4), max_size=4), lost=st.integers(1, 50), after=st.integers(0, 4))
def test_what_was_written_after_the_state_is_cut_off(tmp_path: Path, before: list[int], lost: int, after: int) -> None:
    """As after a kill: the file is longer than the journal says, by any number of bytes."""
    path = tmp_path / "rows.npy"
    random = np.random.default_rng(1)
    parts = [random.standard_normal((rows, 3)).astype("<f2") for rows in [*before, after]]
    file = AppendOnlyArray(path, "<f2", (3,))
    for part in parts[:-1]:
        file.append(part)
    file.sync()
    state = file.state
    file.write(b"x" * lost)
    file.close()
    resumed = AppendOnlyArray(path, "<f2", (3,), state=state)
    assert path.stat().st_size == state["bytes"]
    resumed.append(parts[-1])
    whole = np.concatenate(parts)
    described = resumed.finish()
    assert np.load(path).tolist() == whole.tolist()
    assert described.bytes == path.stat().st_size == HEADER_BYTES + whole.nbytes
    assert described.crc32 == f"{zlib.crc32(whole.tobytes()):08x}"
    assert described.file == "rows.npy"
    assert described.shape == whole.shape


def test_lines_become_an_array_as_wide_as_the_longest(tmp_path: Path) -> None:
    lines = AppendOnlyLines(tmp_path / "ids.txt", tmp_path / "ids.npy")
    lines.append([b"longest", b""])
    state = lines.state
    lines.append([b"longer than the longest"])
    lines.close()
    resumed = AppendOnlyLines(tmp_path / "ids.txt", tmp_path / "ids.npy", state=state)
    resumed.append([b"a"])
    described = resumed.finish()
    assert np.load(tmp_path / "ids.npy").tolist() == [b"longest", b"", b"a"]
    assert (described.file, described.dtype, described.shape) == ("ids.npy", "|S7", (3,))


def test_what_is_appended_at_once_lies_in_one_shard(tmp_path: Path) -> None:
    """Shards of 5 rows, resumed in the second; 7 rows at once exceed the limit, alone in their shard."""
    random = np.random.default_rng(1)
    parts = [random.standard_normal((rows, 3)).astype("<f2") for rows in (2, 3, 4, 7, 1)]
    shards = AppendOnlyShards(tmp_path, 3, 5)
    for part in parts[:3]:
        shards.append(part)
    shards.sync()
    state = shards.state
    shards.append(parts[3])
    shards.close()
    resumed = AppendOnlyShards(tmp_path, 3, 5, state=state)
    assert resumed.files == ["features-00000.npy", "features-00001.npy"]
    for part in parts[3:]:
        resumed.append(part)
    described = resumed.finish()
    assert [shard.shape for shard in described] == [(5, 3), (4, 3), (7, 3), (1, 3)]
    assert [np.load(tmp_path / shard.file).tolist() for shard in described] == [
        np.concatenate(part).tolist() for part in (parts[:2], parts[2:3], parts[3:4], parts[4:])
    ]


@pytest.mark.parametrize("file", ["features-00000.npy", "features-00001.npy"])
def test_a_file_that_lost_its_end(tmp_path: Path, file: str) -> None:
    shards = AppendOnlyShards(tmp_path, 3, 5)
    for _ in range(2):
        shards.append(np.ones((4, 3), dtype="<f2"))
    state = shards.state
    shards.close()
    (tmp_path / file).write_bytes(b"short")
    with pytest.raises(DataError, match=f"{file} has 5 bytes, at least {HEADER_BYTES + 24} expected"):
        AppendOnlyShards(tmp_path, 3, 5, state=state)
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match=f"{file} has 0 bytes"):
        AppendOnlyShards(tmp_path, 3, 5, state=state)
