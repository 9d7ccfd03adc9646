"""Formats of photos: their extensions, HEIC and AVIF by their bytes, and what is said where a reader is missing."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from xgpt_fairseq.regions.image_ids import canonical_image_id, is_photo_name
from xgpt_fairseq.vision import photo_formats
from xgpt_fairseq.vision.photo_formats import FORMATS, iso_format, known_formats, reader_versions
from xgpt_fairseq.vision.photos import PhotoError, PhotoForm, load_photo

HEIF_EXTENSIONS = (".heic", ".heics", ".heif", ".heifs", ".hif")  # as pillow-heif registers them


@pytest.fixture
def fresh() -> Iterator[None]:
    """What is installed is looked at anew, and forgotten afterwards."""
    opened, order = dict(Image.OPEN), list(Image.ID)
    known_formats.cache_clear()
    yield
    known_formats.cache_clear()
    Image.OPEN.clear()
    Image.OPEN.update(opened)
    Image.ID[:] = order


def box(major: bytes, *compatible: bytes) -> bytes:
    """The first box of a file in ISO's base media format."""
    brands = b"".join(compatible)
    return struct.pack(">I", 16 + len(brands)) + b"ftyp" + major + bytes(4) + brands + b"more, such as heic or avif"


def test_extensions_are_those_of_the_formats() -> None:
    """Pillow reads MPO, photos of two lenses, as JPEG."""
    known_formats()
    read = {extension for extension, name in Image.EXTENSION.items() if name in (*FORMATS, "MPO")}
    others = Image.EXTENSION.keys() - read - set(HEIF_EXTENSIONS)
    assert {".jpg", ".mpo", ".dib", ".pfm", ".jp2", ".avif"} <= read and {".eps", ".ico", ".pdf"} <= others
    for extension in (*read, *HEIF_EXTENSIONS):
        for name in (f"a{extension}", f"a{extension.upper()}"):
            assert is_photo_name(name) and canonical_image_id(name) == "a"
    assert [extension for extension in others if is_photo_name(f"a{extension}")] == []


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (box(b"heic", b"mif1", b"heic"), "HEIC"), (box(b"mif1", b"heix"), "HEIC"), (box(b"hevc"), "HEIC"),
        (box(b"msf1", b"hevc"), "HEIC"), (box(b"avif", b"mif1"), "AVIF"), (box(b"mif1", b"miaf", b"avif"), "AVIF"),
        (box(b"isom", b"mp42"), ""), (box(b"qt  "), ""), (b"\xff\xd8\xff\xe0heic", ""), (b"", ""), (b"1234ftyp", ""),
    ],
)  # fmt: skip
def test_brands(head: bytes, expected: str) -> None:
    assert iso_format(head) == expected


@pytest.mark.usefixtures("fresh")
def test_without_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file is named: telephones and people rename photos."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    reasons = {}
    for name, head in {"a.jpg": box(b"heic", b"mif1"), "b.heic": box(b"mif1", b"heic"), "c.heic": b"text"}.items():
        (tmp_path / name).write_bytes(head)
        with pytest.raises(PhotoError) as error:
            load_photo(tmp_path / name, PhotoForm(64))
        reasons[name] = error.value.reason
    heic = 'HEIC, which needs the package pillow-heif: pip install "xgpt-fairseq[heif]"'
    assert (reasons["a.jpg"], reasons["b.heic"]) == (heic, heic)
    assert reasons["c.heic"].startswith("not a photo, or damaged at its beginning; JPEG, PNG")
    assert "pillow-heif" not in reader_versions()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    known_formats.cache_clear()
    (tmp_path / "d.jpg").write_bytes(box(b"avif", b"mif1"))
    with pytest.raises(PhotoError, match=r"AVIF, which needs Pillow 11\.3 or later: pip install --upgrade pillow"):
        load_photo(tmp_path / "d.jpg", PhotoForm(64))


class FakeHeif(ImageFile.ImageFile):
    """Every HEIC is a red square."""

    format = "HEIF"

    def _open(self) -> None:
        self._size, self._mode = (8, 8), "RGB"
        self.tile = [ImageFile._Tile("raw", (0, 0, 8, 8), 0, ("RGB", 0, 1))]
        self.fp = io.BytesIO(bytes((255, 0, 0)) * 64)


@pytest.mark.usefixtures("fresh")
def test_the_opener_of_pillow_heif_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("pillow_heif")
    module.__version__ = "1.2.3"
    module.register_heif_opener = lambda: Image.register_open("HEIF", FakeHeif, lambda head: iso_format(head) == "HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    (tmp_path / "a.jpg").write_bytes(box(b"heic"))
    assert (load_photo(tmp_path / "a.jpg", PhotoForm(64)).pixels == (255, 0, 0)).all()
    assert "HEIF" in known_formats()
    assert reader_versions() == {"pillow": photo_formats.reader_versions()["pillow"], "pillow-heif": "1.2.3"}


def halves() -> Image.Image:
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 64:] = (250, 120, 30)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("suffix", "orientation"), [("heic", 1), ("avif", 1), ("avif", 6)])
def test_photos_of_telephones(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves().save(tmp_path / f"a.{suffix}", exif=exif)
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.jpg")
    photo = load_photo(tmp_path / "a.jpg", PhotoForm(128))
    assert photo.size == ((128, 64) if orientation == 1 else (64, 128))
    expected = np.asarray(halves()) if orientation == 1 else np.rot90(np.asarray(halves()), -1)
    assert np.abs(photo.pixels.astype(int) - expected).max() < 40
