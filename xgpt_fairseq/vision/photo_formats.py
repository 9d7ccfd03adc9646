"""Formats of photos: which are read here, and why one is not."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final

from xgpt_fairseq.errors import DataError

# What is read as a photo, by Pillow's names. Pillow knows more formats; some of them start other programs (EPS).
# `regions.image_ids` has the extensions of all of them.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")

# The first bytes that tell what a file is.
HEAD_BYTES: Final = 256

# Brands of ISO's base media format (ISO/IEC 14496-12, 23008-12), in which both formats come.
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


@cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that are read here: HEIF if pillow-heif is installed, the others if Pillow has them.

    Raises:
        DataError: there is no Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DataError('photos are read with Pillow: pip install "xgpt-fairseq[photos]"') from None
    Image.init()
    heif = _pillow_heif()
    if heif is not None:
        heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def reader_versions() -> dict[str, str]:
    """The packages that read photos, and their versions. Raises DataError where there is no Pillow."""
    known_formats()
    import PIL

    heif = _pillow_heif()
    return {"pillow": PIL.__version__, **({} if heif is None else {"pillow-heif": heif.__version__})}


def missing_reader(head: bytes) -> str:
    """Of a file that Pillow does not know by its first bytes: what it is, and what has to be installed.

    Returns:
        str: empty if nothing would help.
    """
    from PIL import features

    found = iso_format(head)
    if found == "HEIC" and "HEIF" not in known_formats():
        return 'HEIC, which needs the package pillow-heif: pip install "xgpt-fairseq[heif]"'
    if found == "AVIF" and not ("AVIF" in known_formats() and features.check("avif")):
        return "AVIF, which needs Pillow 11.3 or later: pip install --upgrade pillow"
    return ""


def iso_format(head: bytes) -> str:
    """`HEIC` or `AVIF`, by the brands in the first bytes of a file, whatever its name; empty for all others."""
    if head[4:8] != b"ftyp":
        return ""
    length = int.from_bytes(head[:4])
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)) - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else ""


def _pillow_heif() -> Any:
    try:
        return importlib.import_module("pillow_heif")
    except ImportError:
        return None
