"""A data directory: what `preprocess/prepare_captions.py` writes and the tasks read.

    dict.txt, vocabulary.json, bpe.*      the vocabulary, see `Vocabulary`
    {split}.captions.bin / .idx           token ids of every caption, end of sentence included (fairseq's mmap format)
    {split}.pairs.npy                     int32 or int64 (captions,): for each caption, its row in the region store
    {split}.references.json               COCO caption format, raw text: what the metrics read
    regions/                              the region store, or dataset.json says where it is
    dataset.json                          format version, counts, feature width, how it was made

Captions lie image by image, in the order of `references.json`'s `images`.
"""

from __future__ import annotations

import os
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset

from xgpt_fairseq.data.region_store import RegionStore
from xgpt_fairseq.data.vocabulary import Vocabulary
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.evaluation.captions import References, read_references
from xgpt_fairseq.files import read_description

FORMAT_VERSION = 1


def file_crc32(path: Path) -> str:
    """Checksum of a small file."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


class DataDirectory:
    """A data directory, opened and checked; nothing large is read.

    Args:
        path: the directory.
        regions: a region store to use instead of the one that the directory names; it must hold the same images.

    Raises:
        DataError: not a data directory, a newer format, a file missing, or a region store that does not belong to it.
    """

    def __init__(self, path: Path | str, regions: Path | str | None = None) -> None:
        self.path = Path(path)
        self.description = read_description(
            self.path / "dataset.json",
            what="a data directory",
            made_by="preprocess/prepare_captions.py",
            newest=FORMAT_VERSION,
        )
        self._regions = Path(regions) if regions else None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the captions were encoded with.

        Raises:
            DataError: dict.txt was changed since.
        """
        vocabulary = Vocabulary(self.path)
        if file_crc32(self.path / "dict.txt") != self.description["dictionary_crc32"]:
            raise DataError(f"{self.path / 'dict.txt'} was changed since the captions were encoded; prepare them again")
        return vocabulary

    @property
    def regions_path(self) -> Path:
        """Where the region store is: given, `regions/` in the directory, or as dataset.json says."""
        if self._regions is not None:
            return self._regions
        inside = self.path / "regions"
        return inside if inside.exists() else Path(os.path.normpath(self.path / self.description["regions"]))

    @cached_property
    def regions(self) -> RegionStore:
        """The region store, checked against what the captions were prepared for."""
        path = self.regions_path
        if not path.exists():
            raise DataError(
                f"{path}: the region store of {self.path} is not there; name it by --regions STORE, or put it (or a "
                f"link to it) at {self.path / 'regions'}"
            )
        store = RegionStore(path)
        if store.ids_crc32 != self.description["regions_ids_crc32"]:
            raise DataError(
                f"{path} does not hold the images, in the order, that {self.path} was prepared for; prepare the "
                f"captions again with --regions {path}"
            )
        return store

    def has_split(self, split: str) -> bool:
        """Whether the directory has captions of *split*."""
        return split in self.description["splits"]

    def captions(self, split: str) -> MMapIndexedDataset:
        """Token ids of the captions of *split*, memory-mapped; item i is int64 (T,) with end of sentence."""
        prefix = self._file(split, "captions")
        for suffix in (".bin", ".idx"):
            if not Path(f"{prefix}{suffix}").is_file():
                raise DataError(f"{prefix}{suffix} is missing; prepare {self.path} again")
            size, expected = Path(f"{prefix}{suffix}").stat().st_size, self._count(split, f"{suffix[1:]}_bytes")
            if size != expected:
                raise DataError(f"{prefix}{suffix} has {size} bytes instead of {expected}; prepare {self.path} again")
        return MMapIndexedDataset(str(prefix))

    def pairs(self, split: str) -> np.ndarray:
        """(captions,) row in the region store of each caption of *split*, memory-mapped."""
        file = self._file(split, "pairs.npy")
        if not file.is_file():
            raise DataError(f"{file} is missing; prepare {self.path} again")
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
        if rows.shape != (self._count(split, "captions"),) or (len(rows) and rows.max() >= len(self.regions)):
            raise DataError(
                f"{file} pairs {rows.shape} captions with rows up to {rows.max(initial=0)}; split {split!r} has "
                f"{self._count(split, 'captions')} captions and {self.regions.path} {len(self.regions)} images: "
                "prepare the data again"
            )
        return rows

    def references_path(self, split: str) -> Path:
        """The file of the raw captions of *split*, in COCO's format."""
        return self._file(split, "references.json")

    def references(self, split: str) -> References:
        """The raw captions of *split*, by image in the order of the captions."""
        references = read_references(self.references_path(split))
        if len(references.captions) != self._count(split, "images"):
            raise DataError(
                f"{references.path} has {len(references.captions)} images, split {split!r} has "
                f"{self._count(split, 'images')}: prepare the data again"
            )
        return references

    def _count(self, split: str, name: str) -> int:
        return self.description["splits"][split][name]

    def _file(self, split: str, name: str) -> Path:
        if not self.has_split(split):
            known = ", ".join(self.description["splits"]) or "none"
            raise DataError(f"{self.path} has no captions for split {split!r}; it has: {known}")
        return self.path / f"{split}.{name}"
