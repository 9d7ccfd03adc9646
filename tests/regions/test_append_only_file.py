"""Arrays that grow row by row, cut back and resumed, as numpy reads them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xgpt_fairseq.regions.append_only_file import HEADER_BYTES, AppendOnlyArrayFile, npy_header


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


@given(before=st.lists(st.integers(0, 4), max_size=4), lost=st.integers(1, 50), after=st.integers(0, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_after_the_state_is_cut_off(tmp_path: Path, before: list[int], lost: int, after: int) -> None:
    """As after a kill: the file is longer than the journal says, by any number of bytes."""
    path = tmp_path / "rows.npy"
    random = np.random.default_rng(1)
    parts = [random.standard_normal((rows, 3)).astype("<f2") for rows in [*before, after]]
    file = AppendOnlyArrayFile(path, header=npy_header("<f2", (0, 3)))
    for part in parts[:-1]:
        file.append(part)
    file.sync()
    state = file.state
    file.append(b"x" * lost)
    file.close()
    resumed = AppendOnlyArrayFile(path, state=state)
    assert path.stat().st_size == state["bytes"]
    resumed.append(parts[-1])
    whole = np.concatenate(parts)
    described = resumed.finish("<f2", whole.shape)
    assert np.load(path).tolist() == whole.tolist()
    assert described.bytes == path.stat().st_size == HEADER_BYTES + whole.nbytes
    assert described.crc32 == f"{zlib.crc32(whole.tobytes()):08x}"
    assert described.file == "rows.npy"
