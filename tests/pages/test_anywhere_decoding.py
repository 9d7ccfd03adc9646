"""Photos of all kinds as the page that captions by itself decodes and resizes them, beside Pillow."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pages.browser import opened
from xgpt_fairseq.pages.rendering import read_template
from xgpt_runtime.photos import PhotoError, PhotoForm, load_photo

FORM = {"image_size": 384, "stride": 32, "square": False}
SIZE = (322, 214)
UNREADABLE = "not a photo that this browser can read, or damaged"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with opened() as tab:
        tab.set_content('<body data-max-pixels="20000000">')
        for name in ("anywhere_photos.js", "anywhere_decode.js"):
            tab.add_script_tag(content=read_template(name))
        yield tab


READ = """async ([text, form]) => {
  try {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const { rgb, width, height, note } = await pixelsOf(bytes.buffer);
    const target = sizeOf(width, height, form);
    const pixels = Array.from(resized(rgb, width, height, target), (value) => String.fromCharCode(value)).join("");
    return { pixels: btoa(pixels), size: [width, height], target, note };
  } catch (error) {
    return { error: error.message };
  }
}"""


def read(page: Any, content: bytes) -> Any:
    return page.evaluate(READ, [base64.b64encode(content).decode(), FORM])


def away(page: Any, content: bytes, path: Path) -> tuple[int, str]:
    """The largest difference of a pixel from Pillow's, and the page's note."""
    path.write_bytes(content)
    expected = load_photo(path, PhotoForm(**FORM, interpolation="bilinear"))
    found = read(page, content)
    assert "error" not in found, found
    columns, rows = found["target"]
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(rows, columns, 3).astype(int)
    assert tuple(found["size"]) == expected.size and pixels.shape == expected.pixels.shape
    return int(np.abs(pixels - expected.pixels).max()), found["note"]


def scene(size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth areas, edges, noise and colours."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    red = 255 * ((np.sin(9 * x) + np.cos(7 * y * x)) / 4 + 0.5)
    green = 255 * (np.hypot(x - 0.4, y - 0.6) < 0.3)
    blue = 200 * (x + y) / 2 + np.random.default_rng(0).normal(0, 12, (height, width))
    return Image.fromarray(np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def see_through() -> Image.Image:
    image = scene()
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1))))
    return image


def sixteen_bits(values: np.ndarray) -> bytes:
    """A PNG of (H, W) or (H, W, 3) uint16; Pillow writes those of three channels in no mode of its own."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def wide(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(int) * 257
    return (values + np.random.default_rng(1).integers(-100, 100, values.shape)).clip(0, 65535)


# By kind: the file, and by how much its pixels may be away from Pillow's.
KINDS: dict[str, tuple[Callable[[], bytes], int]] = {
    "jpeg": (lambda: saved(scene(), "JPEG", quality=90), 0),
    "progressive": (lambda: saved(scene(), "JPEG", progressive=True), 0),
    "grey jpeg": (lambda: saved(scene().convert("L"), "JPEG"), 0),
    "cmyk": (lambda: saved(scene().convert("CMYK"), "JPEG", quality=95), 0),  # in Chromium; others may do otherwise
    "grey": (lambda: saved(scene().convert("L"), "PNG"), 0),
    "black and white": (lambda: saved(scene().convert("1"), "PNG"), 0),
    "alpha": (lambda: saved(see_through(), "PNG"), 2),  # Pillow resizes before it puts the photo on white
    "grey alpha": (lambda: saved(see_through().convert("LA"), "PNG"), 2),
    "alpha webp": (lambda: saved(see_through(), "WEBP", lossless=True), 2),
    "transparent palette": (lambda: saved(scene().quantize(64), "PNG", transparency=3), 2),
    "16-bit grey": (lambda: sixteen_bits(wide(scene().convert("L"))), 1),
    "16-bit colours": (lambda: sixteen_bits(wide(scene())), 1),
    "gif": (lambda: saved(scene().quantize(200), "GIF"), 0),
    "moving gif": (lambda: saved(scene().quantize(), "GIF", save_all=True, append_images=[scene().rotate(90)]), 0),
    "webp": (lambda: saved(scene(), "WEBP", quality=80), 0),
    "bmp": (lambda: saved(scene(), "BMP"), 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_beside_pillow(page: Any, tmp_path: Path, kind: str) -> None:
    make, most = KINDS[kind]
    found, note = away(page, make(), tmp_path / "photo")
    assert found <= most and (note.startswith("A CMYK photo") if kind == "cmyk" else not note)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_all_turns_of_exif(page: Any, tmp_path: Path, turn: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = saved(scene(), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    if form == "WEBP" and turn > 1:  # browsers do not turn it; the page says so
        found = read(page, content)
        assert tuple(found["size"]) == SIZE and found["note"].startswith("A WebP photo that is to be turned")
        return
    found, note = away(page, content, tmp_path / "photo")
    assert found <= (1 if turn > 4 else 0) and not note  # Pillow resizes before it turns: rows first, or columns


@pytest.mark.parametrize(
    ("size", "most"), [((1600, 1200), 8), pytest.param((4000, 3000), 5, marks=pytest.mark.thorough)]
)
def test_large_jpegs(page: Any, tmp_path: Path, size: tuple[int, int], most: int) -> None:
    """Pillow decodes them at a half or a quarter of their size."""
    large = scene().resize(size, Image.Resampling.BICUBIC)
    found, _ = away(page, saved(large, "JPEG", quality=90), tmp_path / "photo")
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
        assert read(page, content) == {"error": UNREADABLE}, name
    assert read(page, b"")["error"] == "the file is empty"
    assert (
        read(page, saved(scene(), "TIFF"))["error"] == "this browser does not read TIFF: save the photo as JPEG or PNG"
    )
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    assert read(page, heic)["error"].startswith("this browser does not read HEIC")
    large = saved(Image.new("1", (5000, 5000)), "PNG")
    assert read(page, large)["error"] == "the photo has 5000 x 5000 pixels; at most 20 megapixels are read"
