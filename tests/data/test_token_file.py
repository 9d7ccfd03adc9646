"""Files of token ids: damage is found in any piece of the index, and many items at once are as one by one."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.data import token_file
from xgpt_fairseq.data.indexed_writer import IndexedWriter
from xgpt_fairseq.data.token_file import TokenFile
from xgpt_fairseq.errors import DataError

WORDS = 100
ITEMS = [[5, 6, 2], [2], [7, 299, 8, 8, 2], [9, 2]]
HEADER = 9 + 8 + 1 + 8  # bytes of the index before the lengths (see `indexed_writer`)


def written(prefix: Path, sizes: np.ndarray) -> Path:
    with IndexedWriter(prefix, vocabulary_size=WORDS) as writer:
        writer.add(np.arange(sizes.sum()) % WORDS, sizes)
        writer.finish()
    return prefix


def damage(prefix: Path, place: int, dtype: type[np.integer], change: int) -> bytes:
    """Add *change* to the number of *dtype* at byte *place* of the index; the bytes that were there before."""
    file = Path(f"{prefix}.idx")
    before = file.read_bytes()
    number = np.frombuffer(before, dtype, 1, place) + dtype(change)
    width = np.dtype(dtype).itemsize
    file.write_bytes(before[:place] + number.tobytes() + before[place + width :])
    return before


def test_damage_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "_PIECE", 3)
    sizes = np.array([2, 1, 4, 1, 3, 2, 2, 5])  # two pieces and a part of one
    prefix = written(tmp_path / "train.text", sizes)
    tokens = TokenFile(prefix, WORDS)
    assert [len(tokens[item]) for item in range(len(sizes))] == sizes.tolist()
    pointers = HEADER + 4 * len(sizes)
    for item in range(len(sizes)):
        for place, dtype in ((HEADER + 4 * item, np.int32), (pointers + 8 * item, np.int64)):
            for change in (-1, 1):
                before = damage(prefix, place, dtype, change)
                with pytest.raises(DataError) as error:
                    TokenFile(prefix, WORDS)
                assert str(error.value) == (
                    f"{prefix}.idx is damaged: its items are not those of {prefix}.bin; prepare the data again"
                ), (item, dtype, change)
                Path(f"{prefix}.idx").write_bytes(before)
    TokenFile(prefix, WORDS)


def test_items_that_end_before_the_ids_or_are_empty(tmp_path: Path) -> None:
    prefix = written(tmp_path / "train.text", np.array([2, 3]))
    with open(f"{prefix}.bin", "ab") as file:
        file.write(b"\0\0")
    with pytest.raises(DataError, match="its items are not those of"):
        TokenFile(prefix, WORDS)
    with pytest.raises(DataError, match="its items are not those of"):
        TokenFile(written(tmp_path / "valid.text", np.array([2, 0, 1])), WORDS)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    sentences = 3 << 20
    sizes = np.ones(sentences, dtype=np.int64)
    tokens = TokenFile(written(tmp_path / "train.text", sizes), WORDS)
    tracemalloc.start()
    try:
        assert tokens._end_of_items() == sentences * 2
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40 << 20  # four arrays of a piece; two numbers for each sentence would be 48 MiB

    place = HEADER + 4 * sentences + 8 * (token_file._PIECE + 5)
    damage(tmp_path / "train.text", place, np.int64, 2)
    with pytest.raises(DataError, match=r"train\.text\.idx is damaged: its items are not those of"):
        TokenFile(tmp_path / "train.text", WORDS)


# ids take two bytes or four
@pytest.fixture(params=[300, 70_000])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with IndexedWriter(tmp_path / "train.captions", vocabulary_size=request.param) as writer:
        for ids in ITEMS:
            writer.add(ids, [len(ids)])
        writer.finish()
    return tmp_path / "train.captions"


def test_items_are_padded(prefix: Path) -> None:
    padded = TokenFile(prefix, 300).padded(np.array([2, 0, 2]), 1)
    assert padded.dtype == np.int64
    assert padded.tolist() == [[7, 299, 8, 8, 2], [5, 6, 2, 1, 1], [7, 299, 8, 8, 2]]
    assert TokenFile(prefix, 300).padded(np.array([1]), 1).tolist() == [[2]]
    assert TokenFile(prefix, 300).padded(np.array([], dtype=np.int64), 1).shape == (0, 0)


def test_an_id_of_no_word(prefix: Path) -> None:
    damaged = TokenFile(prefix, 299)
    assert damaged.padded(np.array([0, 1, 3]), 1).shape == (3, 3)
    with pytest.raises(DataError, match=r"captions\.bin: item 2 has the token ids 2 to 299, of a dictionary of 299"):
        damaged.padded(np.array([0, 2]), 1)


def test_a_file_cut_since_it_was_opened(prefix: Path) -> None:
    tokens = TokenFile(prefix, 300)
    file = Path(f"{prefix}.bin")
    with file.open("r+b") as stream:
        stream.truncate(4)
    with pytest.raises(DataError, match=r"captions\.bin was cut to 4 bytes"):
        tokens.padded(np.array([0]), 1)
