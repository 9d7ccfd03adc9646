"""The region archive formats, and the detection of a path's format.

To add a format, write a module with a `RegionReader`, and add it to `FORMATS`.
"""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    from xgpt_fairseq.archives.base import RegionReader

# name of the format → module here, and its reader
FORMATS: Final = {
    "npz-dir": ("npz_dir", "NpzDirReader"),
    "butd-tsv": ("butd_tsv", "ButdTsvReader"),
    "vinvl-tsv": ("vinvl_tsv", "VinvlTsvReader"),
    "vlp-h5": ("vlp_h5", "VlpH5Reader"),
    "m2-h5": ("m2_h5", "M2H5Reader"),
    "vilbert-lmdb": ("vilbert_lmdb", "VilbertLmdbReader"),
    "mmf-npy": ("mmf_npy", "MmfNpyReader"),
}


@functools.cache
def readers() -> dict[str, type[RegionReader]]:
    """The readers of all formats, by the names of these."""
    return {
        name: getattr(import_module(f"{__package__}.{module}"), reader) for name, (module, reader) in FORMATS.items()
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
    from xgpt_fairseq.archives.npz_dir import FeaturesAloneReader

    known = readers()
    alone = FeaturesAloneReader.detect(path) if not needs_boxes else None
    if format_name != "auto":
        if alone and format_name == FeaturesAloneReader.name and known[format_name].detect(path) is None:
            return FeaturesAloneReader(path), alone
        reader = known[format_name](path)
        return reader, known[format_name].detect(path) or str(path)
    found = {name: words for name, reader in known.items() if (words := reader.detect(path)) is not None}
    if not found and alone:
        return FeaturesAloneReader(path), alone
    if not found:
        layouts = "; ".join(f"{name}: {reader.layout}" for name, reader in known.items())
        missing = "" if path.exists() else " (there is no such file or folder)"
        raise DataError(f"{path}: no known region archive{missing}. Known are {layouts}")
    if len(found) > 1:
        both = "; ".join(f"{name}: {words}" for name, words in found.items())
        raise DataError(f"{path} can be read in more than one way: choose with --format. {both}")
    [(name, words)] = found.items()
    return known[name](path), words
