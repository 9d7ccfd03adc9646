"""Photos as cameras, scanners and programs write them: one picture in files of all kinds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image

# Kinds of files, each of a picture in RGB.
Make = Callable[[Image.Image], bytes]
ORIENTATION: Final = 0x0112


def scene(size: tuple[int, int] = (322, 214)) -> Image.Image:
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


def see_through(image: Image.Image) -> Image.Image:
    """From transparent at the left to opaque at the right."""
    width, height = image.size
    image = image.copy()
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))))
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
    """Its values in 16 bits, and some noise in the lower ones."""
    values = np.asarray(image).astype(int) * 257
    return (values + np.random.default_rng(1).integers(-100, 100, values.shape)).clip(0, 65535)


def turned(image: Image.Image, turn: int, form: str = "JPEG") -> bytes:
    """With an EXIF orientation, 1 to 8."""
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return saved(image, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))


def enlarged(image: Image.Image, size: tuple[int, int]) -> bytes:
    return saved(image.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=90)


# Of 8 bits and three colours, or fewer, without transparency: browsers read the same pixels as Pillow.
PLAIN: dict[str, Make] = {
    "jpeg": lambda image: saved(image, "JPEG", quality=90),
    "progressive": lambda image: saved(image, "JPEG", progressive=True),
    "grey jpeg": lambda image: saved(image.convert("L"), "JPEG"),
    "grey": lambda image: saved(image.convert("L"), "PNG"),
    "black and white": lambda image: saved(image.convert("1"), "PNG"),
    "gif": lambda image: saved(image.quantize(200), "GIF"),
    "moving gif": lambda image: saved(image.quantize(), "GIF", save_all=True, append_images=[image.rotate(90)]),
    "webp": lambda image: saved(image, "WEBP", quality=80),
    "bmp": lambda image: saved(image, "BMP"),
}
SEE_THROUGH: dict[str, Make] = {
    "alpha": lambda image: saved(see_through(image), "PNG"),
    "grey alpha": lambda image: saved(see_through(image).convert("LA"), "PNG"),
    "alpha webp": lambda image: saved(see_through(image), "WEBP", lossless=True),
    "transparent palette": lambda image: saved(image.quantize(64), "PNG", transparency=3),
}
DEEP: dict[str, Make] = {
    "16-bit grey": lambda image: sixteen_bits(wide(image.convert("L"))),
    "16-bit colours": lambda image: sixteen_bits(wide(image)),
}
CMYK: dict[str, Make] = {"cmyk": lambda image: saved(image.convert("CMYK"), "JPEG", quality=95)}
LARGE: dict[str, Make] = {
    "1600 x 1200": lambda image: enlarged(image, (1600, 1200)),
    "12 megapixels": lambda image: enlarged(image, (4000, 3000)),
}
TURNED: dict[str, Make] = {f"turn {turn}": lambda image, turn=turn: turned(image, turn) for turn in range(1, 9)}
ALL: dict[str, Make] = {**PLAIN, **SEE_THROUGH, **DEEP, **CMYK, **LARGE, **TURNED}
