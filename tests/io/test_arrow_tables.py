"""Tables whose bytes contradict themselves. Others are read in tests/captions and tests/vision."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.arrow_tables import ArrowTable

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
pytest.importorskip("pyarrow.ipc")


@pytest.fixture(scope="module")
def contradictory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file with a column that may have no value, then changed to one that must have some."""
    path = tmp_path_factory.mktemp("tables") / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"caption": ["a dog", "a cat"]}), path)
    whole = path.read_bytes()
    for content in _changed(whole):
        path.write_bytes(content)
        if _ends_the_process(path):
            return path
    pytest.fail("pyarrow no longer ends the process: io/arrow_tables.py need not look first in another one")


def _changed(whole: bytes) -> Iterator[bytes]:
    """With a 2 of the description at the end, which is an optional column among other things, changed to 0."""
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(start, len(whole) - 8):
        if whole[at] == 2:
            yield whole[:at] + b"\0" + whole[at + 1 :]


def _ends_the_process(path: Path) -> bool:
    child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            pyarrow.parquet.read_metadata(path).row_group(0).column(0)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_column_that_contradicts_itself(contradictory: Path) -> None:
    with pytest.raises(DataError, match=r"a\.parquet cannot be read: what it says of its columns contradicts itself$"):
        ArrowTable(contradictory)


def test_a_column_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    with pyarrow.ipc.new_file(str(path), pyarrow.schema({"caption": pyarrow.string()})):
        pass
    path.write_bytes(path.read_bytes().replace(b"caption", b"c\xffption"))
    with pytest.raises(DataError, match=r"a\.arrow cannot be read: .*utf-8"):
        ArrowTable(path)
