"""Photos of all kinds as the page that captions by itself decodes and resizes them, beside Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.odd_photos import ALL, CMYK, DEEP, ORIENTATION, PLAIN, SEE_THROUGH, saved, scene, turned
from tests.pages.browser import opened
from tests.pages.decoding import decoded, make_decoding
from xgpt_runtime.photos import PhotoError, PhotoForm, load_photo

FORM = {"image_size": 384, "stride": 32, "square": False}
UNREADABLE = "not a photo that this browser can read, or damaged"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with opened() as tab:
        make_decoding(tab)
        yield tab


def away(page: Any, content: bytes, path: Path) -> tuple[int, str]:
    """The largest difference of a pixel from Pillow's, and the page's note."""
    path.write_bytes(content)
    expected = load_photo(path, PhotoForm(**FORM, interpolation="bilinear"))
    found = decoded(page, content, FORM)
    assert not found.error and found.size == expected.size and found.pixels.shape == expected.pixels.shape
    return int(np.abs(found.pixels.astype(int) - expected.pixels).max()), found.note


# By kind: by how much its pixels may be away from Pillow's.
MOST = {
    **dict.fromkeys(PLAIN, 0),
    **dict.fromkeys(SEE_THROUGH, 0),
    **dict.fromkeys(DEEP, 1),
    **dict.fromkeys(CMYK, 0),  # in Chromium; others may do otherwise
}


@pytest.mark.parametrize("kind", MOST)
def test_pixels_beside_pillow(page: Any, tmp_path: Path, kind: str) -> None:
    found, note = away(page, ALL[kind](scene()), tmp_path / "photo")
    assert found <= MOST[kind] and (note.startswith("A CMYK photo") if kind == "cmyk" else not note)


@pytest.mark.parametrize("size", [(322, 214), (2400, 100)])
def test_transparency_of_all_degrees(page: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    """Of noise, in both formats that have it; also where Pillow averages whole pixels first."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), dtype=np.uint8))
    for form in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {"compress_level": 1}
        assert away(page, saved(noise, form, **options), tmp_path / form) == (0, "")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_all_turns_of_exif(page: Any, tmp_path: Path, turn: int, form: str) -> None:
    most, note = away(page, turned(scene(), turn, form), tmp_path / "photo")
    assert most == 0
    assert note.startswith("A WebP photo that is to be turned") if form == "WEBP" and turn > 1 else not note


def test_turns_of_other_files(page: Any, tmp_path: Path) -> None:
    """Numbers in the other order of bytes, values that are no turn, and EXIF data that are cut."""
    exif = Image.Exif()
    exif.endian = ">"
    for turn in (0, 6, 9):
        exif[ORIENTATION] = turn
        assert away(page, saved(scene(), "JPEG", exif=exif), tmp_path / "photo") == (0, "")
    whole = exif.tobytes()
    for length in range(6, len(whole), 5):
        assert away(page, saved(scene(), "JPEG", exif=whole[:length]), tmp_path / "photo") == (0, "")


@pytest.mark.parametrize(
    ("kind", "most"), [("1600 x 1200", 8), pytest.param("12 megapixels", 5, marks=pytest.mark.thorough)]
)
def test_large_jpegs(page: Any, tmp_path: Path, kind: str, most: int) -> None:
    """Pillow decodes them at a half or a quarter of their size."""
    found, _ = away(page, ALL[kind](scene()), tmp_path / "photo")
    assert found <= most


def test_colour_profiles_are_ignored(page: Any, tmp_path: Path) -> None:
    """As in Pillow: a profile whose red and green are exchanged changes nothing."""
    cms = pytest.importorskip("PIL.ImageCms")
    profile = bytearray(cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, green = (slice(tags[name] + 4, tags[name] + 8) for name in (b"rXYZ", b"gXYZ"))
    profile[red], profile[green] = profile[green], profile[red]
    for form in ("JPEG", "PNG"):
        assert away(page, saved(scene(), form, icc_profile=bytes(profile)), tmp_path / form)[0] == 0


def test_what_is_damaged_or_no_photo(page: Any, tmp_path: Path) -> None:
    """What Pillow refuses, too: in one line."""
    jpeg, png, webp = (saved(scene(), form) for form in ("JPEG", "PNG", "WEBP"))
    damaged = {
        "half.jpg": jpeg[: len(jpeg) // 2], "end.jpg": jpeg[:-50], "half.png": png[: len(png) // 2],
        "head.png": png[:50], "half.webp": webp[: len(webp) // 2], "notes.txt": b"bread, milk",
        "torn.png": png[: len(png) // 2] + bytes(30) + png[len(png) // 2 + 30 :],
    }  # fmt: skip
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PhotoError):
            load_photo(tmp_path / name, PhotoForm(**FORM, interpolation="bilinear"))
        assert decoded(page, content, FORM).error == UNREADABLE, name

    def error(content: bytes) -> str:
        return decoded(page, content, FORM).error

    assert error(b"") == "the file is empty"
    assert error(saved(scene(), "TIFF")) == "this browser does not read TIFF: save the photo as JPEG or PNG"
    assert error(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").startswith("this browser does not read HEIC")
    large = saved(Image.new("1", (5000, 5000)), "PNG")
    assert error(large) == "the photo has 5000 x 5000 pixels; at most 20 megapixels are read"
