"""Data directories, which the programs of data preparation write and the tasks read.

Captions with regions, from `xgpt-prepare-captions`:

    dict.txt, vocabulary.json, bpe.*      the vocabulary, see `Vocabulary`
    {split}.captions.bin / .idx           token ids of every caption, end of sentence included (fairseq's mmap format)
    {split}.pairs.npy                     int32 or int64 (captions,): index of each caption's image in the region store
    {split}.references.json               raw captions in COCO's format, for the metrics
    regions/                              the region store; otherwise dataset.json has its path
    dataset.json                          format version, counts, feature width, how it was made

Captions are stored image by image, in the order of `references.json`'s `images`.

Plain text, from `xgpt-prepare-text`:

    dict.txt, vocabulary.json, bpe.*      the vocabulary
    {split}.text.bin / .idx               token ids of every sentence, end of sentence included
    dataset.json                          format version, `"kind": "text"`, counts, how it was made
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from xgpt_fairseq.captions.references import References, read_references
from xgpt_fairseq.data.manifest import KINDS, MANIFEST, CaptionManifest, TextManifest, read_kind
from xgpt_fairseq.data.token_file import TokenFile
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.arrays import map_array
from xgpt_fairseq.regions.feature_settings import settings_that_differ
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.text.vocabulary import Vocabulary


def file_crc32(path: Path) -> str:
    """Checksum of a small file."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def check_replaceable(output: Path, kind: str, *, overwrite: bool) -> None:
    """Refuse to replace anything but a data directory of *kind*.

    Raises:
        DataError: *output* exists and *overwrite* is false, or it is not a data directory of this kind.
    """
    if not output.exists():
        return
    if not overwrite:
        raise DataError(f"{output} exists; pass --overwrite to replace it")
    if not (output / MANIFEST).exists():
        raise DataError(f"{output} is not a data directory (it has no dataset.json): it is not replaced")
    found = read_kind(output, kind)
    if found != kind:
        raise DataError(f"{output} is a data directory of kind {found!r}, not {kind!r}: it is not replaced")


def check_regions_inside(output: Path, regions: Path) -> None:
    """Refuse to write captions of the store *regions* to a folder with another one, which would be mistaken for theirs.

    Raises:
        DataError: *output* holds a region store that is not *regions*.
    """
    inside = output / "regions"
    if os.path.lexists(inside) and inside.resolve() != regions.resolve():
        raise DataError(
            f"{output} holds a region store, {inside}, that is not that of the captions, {regions}; move it away first"
        )


def check_no_view(store: RegionStore) -> None:
    """Refuse a store of changed photos, which would be taken for the photos' own.

    Raises:
        DataError: it is one of --view.
    """
    if (view := store.source.get("view")) is not None:
        raise DataError(
            f"{store.path} holds view {view} of the photos, which are cropped or mirrored: name it by --views of a "
            "training, beside the region store of the photos themselves"
        )


class _Directory:
    """What all data directories share: a manifest, a vocabulary, and token ids by split."""

    path: Path
    manifest: CaptionManifest | TextManifest
    items: ClassVar[str]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the directory was encoded with.

        Raises:
            DataError: dict.txt was changed since.
        """
        vocabulary = Vocabulary(self.path)
        if file_crc32(self.path / "dict.txt") != self.manifest.dictionary_crc32:
            raise DataError(
                f"{self.path / 'dict.txt'} was changed since the {self.items} were encoded; prepare them again"
            )
        return vocabulary

    def has_split(self, split: str) -> bool:
        """Whether the directory has *split*."""
        return split in self.manifest.splits

    def _tokens(self, split: str, name: str) -> TokenFile:
        """The token ids in {split}.{name}.bin and .idx, whose sizes are checked."""
        prefix = self._file(split, name)
        sizes = self.manifest.splits[split]
        for file, expected in ((f"{prefix}.bin", sizes.bin_bytes), (f"{prefix}.idx", sizes.idx_bytes)):
            if not Path(file).is_file():
                raise DataError(f"{file} is missing; prepare {self.path} again")
            size = Path(file).stat().st_size
            if size != expected:
                raise DataError(f"{file} has {size} bytes instead of {expected}; prepare {self.path} again")
        return TokenFile(prefix, len(self.vocabulary.dictionary))

    def _file(self, split: str, name: str) -> Path:
        if not self.has_split(split):
            known = ", ".join(self.manifest.splits) or "none"
            raise DataError(f"{self.path} has no {self.items} for split {split!r}; it has: {known}")
        return self.path / f"{split}.{name}"


class TextDirectory(_Directory):
    """A directory of plain text, checked when it is opened.

    Args:
        path: the directory.

    Raises:
        DataError: *path* is not a data directory of text, or has a newer format version.
    """

    manifest: TextManifest
    items = KINDS["text"].items

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = TextManifest.read(self.path)

    def sentences(self, split: str) -> TokenFile:
        """Token ids of the sentences of *split*, memory-mapped; item i is int64 (T,) with end of sentence."""
        return self._tokens(split, "text")


class DataDirectory(_Directory):
    """A directory of captions and their regions, checked when it is opened; nothing large is read.

    Args:
        path: the directory.
        regions: a region store to use instead of the directory's; it must hold the same images.

    Raises:
        DataError: *path* is not a data directory of captions, or has a newer format version.
    """

    manifest: CaptionManifest
    items = KINDS["captions"].items

    def __init__(self, path: Path | str, regions: Path | str | None = None) -> None:
        self.path = Path(path)
        self.manifest = CaptionManifest.read(self.path)
        self._regions = Path(regions) if regions else None

    @property
    def regions_path(self) -> Path:
        """Path of the region store: the given one, `regions/` in the directory, or the one in dataset.json."""
        if self._regions is not None:
            return self._regions
        inside = self.path / "regions"
        return inside if inside.exists() else Path(os.path.normpath(self.path / self.manifest.regions))

    @cached_property
    def regions(self) -> RegionStore:
        """The region store. Raises DataError if it is not the one that the captions were prepared for."""
        path = self.regions_path
        if not path.exists():
            raise DataError(
                f"{path}: the region store of {self.path} is not there; name it by --regions STORE, or put it (or a "
                f"link to it) at {self.path / 'regions'}"
            )
        store = RegionStore(path)
        check_no_view(store)
        if store.ids_crc32 != self.manifest.regions_ids_crc32:
            raise DataError(
                f"{path} does not hold the images, in the order, that {self.path} was prepared for; prepare the "
                f"captions again with --regions {path}"
            )
        return store

    def views(self, paths: Sequence[str]) -> list[RegionStore]:
        """Other region stores of the same images, to train on beside `regions`.

        Raises:
            DataError: one is not there, has other images, another number of regions of an image, or other features.
        """
        return [self._view(Path(path)) for path in paths]

    def _view(self, path: Path) -> RegionStore:
        store, own = RegionStore(path), self.regions
        settings = [each.source.get("extractor") or {} for each in (own, store)]
        wrong = None
        if store.ids_crc32 != own.ids_crc32:
            wrong = "other images, or in another order"
        elif store.feature_dim != own.feature_dim:
            wrong = f"features of width {store.feature_dim}, not {own.feature_dim}"
        elif difference := next(settings_that_differ(*settings), None):
            name, of_own, of_view = difference
            wrong = f"features that were made with {name} {of_view}, not {of_own}"
        elif len(others := np.flatnonzero(store.region_counts() != own.region_counts())):
            image = int(others[0])
            counts = f"{store.region_count(image)} regions, not {own.region_count(image)}"
            wrong = f"image {own.image_id(image)} has {counts}"
        if wrong is not None:
            raise DataError(f"--views: {store.path} does not fit {own.path}: {wrong}")
        return store

    def captions(self, split: str) -> TokenFile:
        """Token ids of the captions of *split*, memory-mapped; item i is int64 (T,) with end of sentence."""
        return self._tokens(split, "captions")

    def pairs(self, split: str) -> np.ndarray:
        """(captions,) index of each caption's image in the region store, memory-mapped."""
        file = self._file(split, "pairs.npy")
        if not file.is_file():
            raise DataError(f"{file} is missing; prepare {self.path} again")
        rows = map_array(file)
        captions = self.manifest.splits[split].captions
        if rows.shape != (captions,) or rows.dtype.kind != "i":
            raise DataError(
                f"{file} holds {rows.dtype} of shape {rows.shape}; whole numbers of ({captions},), the captions of "
                f"split {split!r}, expected: prepare the data again"
            )
        lowest, highest = rows.min(initial=0), rows.max(initial=0)
        if lowest < 0 or (captions and highest >= len(self.regions)):
            raise DataError(
                f"{file} pairs captions with rows {lowest} to {highest}; {self.regions.path} has {len(self.regions)} "
                "images: prepare the data again"
            )
        return rows

    def references_path(self, split: str) -> Path:
        """The file of the raw captions of *split*, in COCO's format."""
        return self._file(split, "references.json")

    def references(self, split: str) -> References:
        """The raw captions of *split*, by image in the order of the captions."""
        references = read_references(self.references_path(split))
        images = self.manifest.splits[split].images
        if len(references.captions) != images:
            raise DataError(
                f"{references.path} has {len(references.captions)} images, split {split!r} has {images}: prepare the "
                "data again"
            )
        return references
