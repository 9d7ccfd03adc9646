"""Writes fairseq's memory-mapped token files for any number of sentences.

fairseq's own `MMapIndexedDatasetBuilder` keeps the length of every sentence, and at the end its address, in Python
lists: 58 bytes per sentence in all. Here lengths are kept in a file, and the index is written in chunks. The resulting
files are the same, byte for byte:

    PREFIX.bin    the concatenated token ids of all sentences
    PREFIX.idx    "MMIDIDX\\0\\0", uint64 version 1, uint8 code of the ids' type, uint64 number of sentences,
                  int32 length of each, int64 address of each in PREFIX.bin, in bytes
"""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from fairseq.data.indexed_dataset import MMapIndexedDataset, _dtype_header_code, best_fitting_int_dtype

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write

_SIZE: Final = np.dtype(np.int32)
_ADDRESS: Final = np.dtype(np.int64)
_MAGIC: Final = MMapIndexedDataset.Index._HDR_MAGIC
_HEADER: Final = struct.Struct("<QBQ")  # behind the magic bytes
# Lengths that are converted to addresses at once.
_PIECE: Final = 1 << 20


def ids_dtype(vocabulary_size: int) -> np.dtype:
    """The type in which ids below *vocabulary_size* are stored, as in fairseq's `make_builder`."""
    return np.dtype(best_fitting_int_dtype(vocabulary_size))


class IndexedWriter:
    """Writes PREFIX.bin and PREFIX.idx, which `MMapIndexedDataset(PREFIX)` reads.

        with IndexedWriter(folder / "train.text", vocabulary_size=len(dictionary)) as writer:
            writer.add(ids, [len(ids)])
            writer.finish()

    Args:
        prefix: path of the two files without suffix. A third file, PREFIX.sizes, exists while they are written.
        vocabulary_size: determines the type of the ids, as in fairseq's `make_builder`.
        state: a result of `sync`, to resume from there, also where `finish` came behind it; the files are truncated to
            it.

    Attributes:
        dtype: the type of the ids.
        sentences, tokens: the numbers added.

    Raises:
        DataError: the files to resume are shorter than *state* says.
    """

    def __init__(self, prefix: Path, *, vocabulary_size: int, state: dict[str, int] | None = None) -> None:
        self.prefix = prefix
        self.dtype = ids_dtype(vocabulary_size)
        self.sentences = self.tokens = 0
        self._sizes_path = Path(f"{prefix}.sizes")
        paths = (Path(f"{prefix}.bin"), self._sizes_path)
        if state is None:
            for path in paths:
                path.write_bytes(b"")
        else:
            self.sentences, self.tokens = state["sentences"], state["tokens"]
            self._restore_sizes()
            bytes_written = (self.tokens * self.dtype.itemsize, self.sentences * _SIZE.itemsize)
            for path, size in zip(paths, bytes_written, strict=True):
                found = path.stat().st_size if path.exists() else 0
                if found < size:
                    raise DataError(f"{path} has {found} bytes, at least {size} expected")
                with path.open("ab") as file:
                    file.truncate(size)
        self._files = [path.open("ab", buffering=1 << 20) for path in paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, tokens: npt.ArrayLike, sizes: npt.ArrayLike) -> None:
        """Append sentences.

        Args:
            tokens: (sum of *sizes*,) the concatenated ids of the sentences.
            sizes: (sentences,) number of ids of each.
        """
        ids, lengths = np.asarray(tokens), np.asarray(sizes)
        if ids.shape != (lengths.sum(),) or lengths.ndim != 1:
            raise ValueError(f"tokens {ids.shape} and sizes {lengths.shape} with the sum {lengths.sum()}")
        for file, array, dtype in zip(self._files, (ids, lengths), (self.dtype, _SIZE), strict=True):
            file.write(np.ascontiguousarray(array, dtype=dtype).data)
        self.sentences += len(lengths)
        self.tokens += len(ids)

    def sync(self) -> dict[str, int]:
        """Flush to disk, and return the state from which a writer can resume."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        return {"sentences": self.sentences, "tokens": self.tokens}

    def finish(self) -> dict[str, int]:
        """Write the index, close the files, and return their sizes in bytes: `bin_bytes`, `idx_bytes`."""
        self.close()
        with open(self._sizes_path, "rb") as sizes, open(f"{self.prefix}.idx", "wb") as index:
            index.write(_MAGIC)
            index.write(_HEADER.pack(1, _dtype_header_code(self.dtype), self.sentences))
            shutil.copyfileobj(sizes, index, 1 << 20)
            sizes.seek(0)
            address = 0
            while len(lengths := np.fromfile(sizes, dtype=_SIZE, count=_PIECE)):
                ends = address + np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
                index.write(np.concatenate([[address], ends[:-1]]).astype(_ADDRESS).data)
                address = int(ends[-1])
            index.flush()
            os.fsync(index.fileno())  # from now on it alone has the sizes
        self._sizes_path.unlink()
        return {f"{kind}_bytes": Path(f"{self.prefix}.{kind}").stat().st_size for kind in ("bin", "idx")}

    def _restore_sizes(self) -> None:
        """Make PREFIX.sizes again from a whole index, where `finish` has removed it."""
        index = Path(f"{self.prefix}.idx")
        if self._sizes_path.exists() or not index.is_file():
            return
        begin = len(_MAGIC) + _HEADER.size
        with index.open("rb") as file:
            header = file.read(begin)
            sentences = _HEADER.unpack_from(header, len(_MAGIC))[2] if len(header) == begin else 0
            if not sentences or index.stat().st_size != begin + sentences * (_SIZE.itemsize + _ADDRESS.itemsize):
                return
            with atomic_write(self._sizes_path) as aside, aside.open("wb") as sizes:
                while sentences:
                    lengths = np.fromfile(file, dtype=_SIZE, count=min(sentences, _PIECE))
                    sizes.write(lengths.data)
                    sentences -= len(lengths)

    def close(self) -> None:
        """Close the files; without `finish` there is no index."""
        for file in self._files:
            file.close()
