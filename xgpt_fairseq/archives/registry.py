"""The region archive formats, and the detection of a path's format.

To add a format, write a module with a `RegionReader`, and add it to `READERS`.
"""

from __future__ import annotations

from pathlib import Path

from xgpt_fairseq.archives.base import RegionReader
from xgpt_fairseq.archives.butd_tsv import ButdTsvReader
from xgpt_fairseq.archives.m2_h5 import M2H5Reader
from xgpt_fairseq.archives.mmf_npy import MmfNpyReader
from xgpt_fairseq.archives.npz_dir import FeaturesAloneReader, NpzDirReader
from xgpt_fairseq.archives.vilbert_lmdb import VilbertLmdbReader
from xgpt_fairseq.archives.vinvl_tsv import VinvlTsvReader
from xgpt_fairseq.archives.vlp_h5 import VlpH5Reader
from xgpt_fairseq.errors import DataError

READERS: dict[str, type[RegionReader]] = {
    reader.name: reader
    for reader in (
        NpzDirReader,
        ButdTsvReader,
        VinvlTsvReader,
        VlpH5Reader,
        M2H5Reader,
        VilbertLmdbReader,
        MmfNpyReader,
    )
}


def open_archive(path: Path, format_name: str = "auto", *, needs_boxes: bool = True) -> tuple[RegionReader, str]:
    """Open the archive at *path*. Returns its reader, and a description of what was found.

    Args:
        path: a file or folder.
        format_name: as --format takes it.
        needs_boxes: whether features without boxes are no archive.

    Raises:
        DataError: *path* does not exist, or its format is unknown or ambiguous.
    """
    alone = FeaturesAloneReader.detect(path) if not needs_boxes else None
    if format_name != "auto":
        if alone and format_name == FeaturesAloneReader.name and READERS[format_name].detect(path) is None:
            return FeaturesAloneReader(path), alone
        reader = READERS[format_name](path)
        return reader, READERS[format_name].detect(path) or str(path)
    found = {name: words for name, reader in READERS.items() if (words := reader.detect(path)) is not None}
    if not found and alone:
        return FeaturesAloneReader(path), alone
    if not found:
        known = "; ".join(f"{name}: {reader.layout}" for name, reader in READERS.items())
        missing = "" if path.exists() else " (there is no such file or folder)"
        raise DataError(f"{path}: no known region archive{missing}. Known are {known}")
    if len(found) > 1:
        both = "; ".join(f"{name}: {words}" for name, words in found.items())
        raise DataError(f"{path} can be read in more than one way: choose with --format. {both}")
    [(name, words)] = found.items()
    return READERS[name](path), words
