"""fairseq's memory-mapped files of token ids, checked: a damaged one is an error, and no other text."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path
from torch import Tensor

from xgpt_fairseq.errors import DataError, foreign_bytes
from xgpt_fairseq.io.arrays import check_not_cut

# Items whose places are checked at once.
_PIECE: Final = 1 << 20


class TokenFile(MMapIndexedDataset):
    """The token ids in PREFIX.bin and PREFIX.idx; item i is int64 (T,), T at least 1.

    Args:
        prefix: of the two files.
        vocabulary_size: every id is below it.

    Raises:
        DataError: the index is damaged, or does not fit the ids; when an item is read, that it has an id of no word, or
            that the file has been cut since it was opened.
    """

    def __init__(self, prefix: Path, vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        with foreign_bytes(index_file_path(str(prefix)), "is damaged"):
            super().__init__(str(prefix))
        self._check_index()

    def __getstate__(self) -> tuple[str, int]:
        return self._path, self._vocabulary_size

    def __setstate__(self, state: tuple[str, int]) -> None:
        path, self._vocabulary_size = state
        super().__setstate__(path)

    def __getitem__(self, i: int) -> Tensor:
        check_not_cut(self._bin_buffer_mmap, f"{self._path}.bin")
        tokens: Tensor = super().__getitem__(i)
        if not (int(tokens.min()) >= 0 and int(tokens.max()) < self._vocabulary_size):
            raise DataError(
                f"{data_file_path(self._path)}: item {i} has the token ids {int(tokens.min())} to {int(tokens.max())}, "
                f"of a dictionary of {self._vocabulary_size}: the file is damaged; prepare the data again"
            )
        return tokens

    def padded(self, items: npt.NDArray[np.integer], pad: int) -> npt.NDArray[np.int64]:
        """Many items at once, int64 (N, T), filled up with *pad* on the right.

        Args:
            items: (N,) their numbers.

        Raises:
            DataError: as for single items.
        """
        check_not_cut(self._bin_buffer_mmap, f"{self._path}.bin")
        ids = self._bin_buffer_mmap.view(self._index.dtype)
        sizes = self.sizes[items]
        first = self._index._pointers[items] // ids.itemsize
        columns = np.arange(sizes.max(initial=0))
        inside = columns < sizes[:, None]
        tokens = np.full(inside.shape, pad, dtype=np.int64)
        tokens[inside] = ids[(first[:, None] + columns)[inside]]
        for row in np.flatnonzero((inside & ((tokens < 0) | (tokens >= self._vocabulary_size))).any(axis=1)):
            self[int(items[row])]  # which says what is wrong with it
        return tokens

    def _check_index(self) -> None:
        """Raise DataError unless the items lie one behind the other, from the beginning of the ids to their end."""
        if self._end_of_items() != len(self._bin_buffer_mmap):
            raise DataError(
                f"{index_file_path(self._path)} is damaged: its items are not those of {data_file_path(self._path)}; "
                "prepare the data again"
            )

    def _end_of_items(self) -> int | None:
        """The byte where the last item ends; None where an item is empty, or begins elsewhere than the last one ends.

        `_PIECE` items are looked at at once: the memory of a process does not grow with the corpus.
        """
        index, width = self._index, self._index.dtype().itemsize
        if len(index._sizes) != len(index._pointers):
            return None
        end = 0
        for first in range(0, len(index._sizes), _PIECE):
            lengths = index._sizes[first : first + _PIECE].astype(np.int64) * width
            ends = np.cumsum(lengths)
            ends += end
            if lengths.min() < 1 or not np.array_equal(index._pointers[first : first + _PIECE], ends - lengths):
                return None
            end = int(ends[-1])
        return end
