"""Token files: byte for byte those of fairseq's builder, and cut back to where a writer is to go on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset, make_builder
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.data import indexed_writer
from xgpt_fairseq.data.indexed_writer import IndexedWriter, ids_dtype
from xgpt_fairseq.errors import DataError

# around the sizes where fairseq changes the type
VOCABULARY_SIZES = [8, 65_499, 65_500, 1 << 20, 2**32]


def fairseq_files(prefix: Path, sentences: list[np.ndarray], vocabulary_size: int) -> dict[str, bytes]:
    builder = make_builder(f"{prefix}.bin", "mmap", vocab_size=vocabulary_size)
    for ids in sentences:
        builder.add_item(torch.from_numpy(ids))
    builder.finalize(f"{prefix}.idx")
    return contents(prefix)


def contents(prefix: Path) -> dict[str, bytes]:
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}.*")}


@st.composite
def corpora(draw: st.DrawFn) -> tuple[int, list[np.ndarray]]:
    size = draw(st.sampled_from(VOCABULARY_SIZES))
    ids = st.integers(0, min(size, 2**62) - 1)
    sentences = draw(st.lists(st.lists(ids, max_size=6), max_size=12))
    return size, [np.array(sentence, dtype=np.int64) for sentence in sentences]


@examples(30, max_examples=150)
@given(corpora(), st.integers(1, 5), st.integers(1, 4))
def test_the_same_bytes_as_fairseqs(corpus: tuple[int, list[np.ndarray]], at_once: int, piece: int) -> None:
    size, sentences = corpus
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexed_writer, "_PIECE", piece)
        expected = fairseq_files(Path(folder) / "fairseq", sentences, size)
        prefix = Path(folder) / "ours"
        with IndexedWriter(prefix, vocabulary_size=size) as writer:
            for begin in range(0, len(sentences), at_once):
                part = sentences[begin : begin + at_once]
                writer.add(np.concatenate(part), [len(ids) for ids in part])
            sizes = writer.finish()
        assert contents(prefix) == expected
        assert sizes == {"bin_bytes": len(expected[".bin"]), "idx_bytes": len(expected[".idx"])}
        assert (writer.sentences, writer.tokens) == (len(sentences), sum(map(len, sentences)))


@pytest.mark.parametrize(
    ("size", "dtype"),
    zip(VOCABULARY_SIZES, [np.uint16, np.uint16, np.uint32, np.uint32, np.int64], strict=True),
)
def test_fairseq_reads_it(tmp_path: Path, size: int, dtype: type) -> None:
    assert ids_dtype(size) == dtype
    sentences = [[0, size - 1, 2], [2], [3, 2]]
    with IndexedWriter(tmp_path / "a.text", vocabulary_size=size) as writer:
        writer.add([0, size - 1, 2, 2, 3, 2], [3, 1, 2])
        writer.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.text.bin", "a.text.idx"]
    dataset = MMapIndexedDataset(str(tmp_path / "a.text"))
    assert [dataset[index].tolist() for index in range(len(dataset))] == sentences
    assert all(dataset[index].dtype == torch.int64 for index in range(3))
    assert dataset.sizes.tolist() == [3, 1, 2]


def test_going_on(tmp_path: Path) -> None:
    sentences = [np.arange(length) for length in (3, 1, 5, 2, 4)]
    expected = fairseq_files(tmp_path / "fairseq", sentences, 100)
    prefix = tmp_path / "ours"
    with IndexedWriter(prefix, vocabulary_size=100) as writer:
        for ids in sentences[:2]:
            writer.add(ids, [len(ids)])
        state = writer.sync()
        writer.add([9, 9, 9], [3])  # and here the machine goes down
    assert state == {"sentences": 2, "tokens": 4}
    with IndexedWriter(prefix, vocabulary_size=100, state=state) as writer:
        for ids in sentences[2:]:
            writer.add(ids, [len(ids)])
        writer.finish()
    assert contents(prefix) == expected


@pytest.mark.parametrize("finished", [0, 2])
def test_going_on_from_before_finish(tmp_path: Path, finished: int) -> None:
    """The file of sizes is gone; a run may end again while it is at work anew."""
    sentences = [np.arange(length) for length in (3, 1, 5, 2, 4)]
    expected = fairseq_files(tmp_path / "fairseq", sentences, 100)
    prefix = tmp_path / "ours"
    state = None
    for _ in range(3):
        with IndexedWriter(prefix, vocabulary_size=100, state=state) as writer:
            for ids in sentences[finished if state else 0 :]:
                if writer.sentences == finished:
                    state = writer.sync()
                writer.add(ids, [len(ids)])
            writer.finish()
        assert contents(prefix) == expected


def test_going_on_without_sizes_from_an_index_that_is_cut(tmp_path: Path) -> None:
    prefix = tmp_path / "a"
    with IndexedWriter(prefix, vocabulary_size=100) as writer:
        writer.add([1, 2, 3], [1, 2])
        state = writer.sync()
        writer.finish()
    index = Path(f"{prefix}.idx")
    whole = index.read_bytes()
    for cut in (0, 20, len(whole) - 1):
        index.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.sizes has 0 bytes, at least 8 expected"):
            IndexedWriter(prefix, vocabulary_size=100, state=state)


@pytest.mark.parametrize("suffix", ["bin", "sizes"])
def test_files_that_are_too_short_to_go_on(tmp_path: Path, suffix: str) -> None:
    prefix = tmp_path / "a"
    with IndexedWriter(prefix, vocabulary_size=100) as writer:
        writer.add([1, 2, 3], [1, 2])
        state = writer.sync()
    file = Path(f"{prefix}.{suffix}")
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"a\.{suffix} has {size - 1} bytes, at least {size} expected"):
        IndexedWriter(prefix, vocabulary_size=100, state=state)
    file.unlink()
    with pytest.raises(DataError, match=rf"a\.{suffix} has 0 bytes"):
        IndexedWriter(prefix, vocabulary_size=100, state=state)


@pytest.mark.parametrize(("tokens", "sizes"), [([1, 2], [3]), ([1, 2], [1]), ([[1, 2]], [2]), ([1], [[1]])])
def test_sizes_that_do_not_fit(tmp_path: Path, tokens: list, sizes: list) -> None:
    with IndexedWriter(tmp_path / "a", vocabulary_size=100) as writer, pytest.raises(ValueError, match="sizes"):
        writer.add(tokens, sizes)
