"""Photos of every kind, and files that are none."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photos import (
    DRAFT,
    REDUCING_GAP,
    LargePhotoError,
    NoPhotoError,
    Photo,
    PhotoError,
    PhotoFile,
    PhotoForm,
    is_photo,
    load_photo,
)

Pixels = npt.NDArray[np.uint8]


def scene(width: int, height: int) -> Image.Image:
    """A smooth picture with no symmetry: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=2).astype(np.uint8))


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def load(path: Path) -> Photo:
    photo = load_photo(path, PhotoForm(64))
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape[2] == 3
    return photo


# Sizes


@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(1, 40))
def test_sizes_for_the_model(width: int, height: int, strides: int) -> None:
    longest = 32 * strides
    found = PhotoForm(longest).size_of(width, height)
    assert max(found) == longest
    for side, whole in zip(found, (width, height), strict=True):
        assert side % 32 == 0
        assert side == 32 or abs(side - whole * longest / max(width, height)) <= 16
    assert PhotoForm(longest).size_of(height, width) == found[::-1]


def test_a_photo_is_scaled_to_its_longer_side(tmp_path: Path) -> None:
    path = saved(scene(640, 480), tmp_path / "a.png")
    photo = load_photo(path)
    assert photo.pixels.shape == (576, 768, 3)
    assert photo.size == (640, 480)
    expected = np.asarray(Image.open(path).resize((768, 576), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(photo.pixels, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 2)])
def test_tiny_and_narrow_photos(tmp_path: Path, size: tuple[int, int]) -> None:
    photo = load(saved(Image.new("RGB", size, (10, 200, 30)), tmp_path / "a.png"))
    assert photo.size == size
    assert (photo.pixels == (10, 200, 30)).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_huge_photos(tmp_path: Path, suffix: str) -> None:
    """A picture that was made smaller on the way is nearly the picture that was not."""
    picture = scene(1501, 903)
    ImageDraw.Draw(picture).ellipse((300, 150, 800, 700), fill=(250, 250, 250))
    path = saved(picture, tmp_path / f"a.{suffix}")
    photo = load_photo(path, PhotoForm(160))
    assert photo.size == (1501, 903)
    expected = np.asarray(Image.open(path).resize((160, 96), Image.Resampling.BILINEAR))
    found = np.abs(photo.pixels.astype(int) - expected.astype(int))
    assert found.mean() < 1
    assert found.max() < 40  # at the edge of the ellipse


def test_a_huge_jpeg_is_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(scene(1024, 512), tmp_path / "a.jpg")
    resized = []
    resize = Image.Image.resize

    def remember(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        resized.append(image.size)
        return resize(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", remember)
    load_photo(path, PhotoForm(64))
    assert resized[0] == (128, 64)


def test_a_draft_s_last_pixels_beyond_the_photo_are_not_seen(tmp_path: Path) -> None:
    """At an eighth, 49 rows are seven, the last of one row and of what pads it: with it whole, all would shift."""
    path = saved(scene(265, 49), tmp_path / "a.jpg", quality=95)
    photo = load_photo(path, PhotoForm(16, stride=1))
    expected = np.asarray(Image.open(path).resize((16, 3), Image.Resampling.BILINEAR))
    assert difference(photo.pixels, expected) <= 8


def test_how_large_photos_are_reduced_is_part_of_their_features(tmp_path: Path) -> None:
    """No store's settings name these two, and other values give other features: noise tells them apart."""
    assert (DRAFT, REDUCING_GAP) == (2, 3.0)
    noise = np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    photo = load(saved(Image.fromarray(noise), tmp_path / "a.png"))
    assert photo.pixels.sum(axis=(0, 1)).tolist() == [260774, 260699, 260952]


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(scene(30, 20), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert load(path).size == (30, 20)  # up to twice the limit Pillow warns only, and that is not shown
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(PhotoError, match=r"a\.png: Image size \(600 pixels\) exceeds limit of 400 pixels"):
        load(path)


@pytest.mark.parametrize("image_size", [0, -32, 100])
def test_sizes_that_are_impossible(tmp_path: Path, image_size: int) -> None:
    with pytest.raises(DataError, match=rf"the image size is {image_size}; a positive multiple of 32 is needed"):
        load_photo(saved(scene(8, 8), tmp_path / "a.png"), PhotoForm(image_size))


# Orientation

UPRIGHT_TO_STORED = {
    1: (),
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_90,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_270,),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = scene(90, 50)
    stored = upright
    for method in UPRIGHT_TO_STORED[orientation]:
        stored = stored.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = load(saved(stored, tmp_path / f"a.{suffix}", exif=exif))
    assert photo.size == (90, 50)
    expected = load(saved(upright, tmp_path / "upright.png"))
    assert difference(photo.pixels, expected.pixels) <= (8 if suffix == "jpg" else 1)


def test_an_orientation_that_does_not_exist(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    photo = load(saved(scene(90, 50), tmp_path / "a.png", exif=exif))
    np.testing.assert_array_equal(photo.pixels, load(saved(scene(90, 50), tmp_path / "b.png")).pixels)


# Modes: a plain picture in each, and its colour as it is seen


def grey_16(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30), value, dtype=np.uint16))


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (30, 20), 1)
    image.putpalette([9, 9, 9, *colour])
    return image


MODES: dict[str, tuple[Image.Image, str, dict[str, Any], tuple[int, int, int]]] = {
    "rgb": (Image.new("RGB", (30, 20), (200, 100, 50)), "png", {}, (200, 100, 50)),
    "grey": (Image.new("L", (30, 20), 77), "png", {}, (77, 77, 77)),
    "black and white": (Image.new("1", (30, 20), 1), "png", {}, (255, 255, 255)),
    "palette": (palette((200, 100, 50)), "png", {}, (200, 100, 50)),
    "palette, opaque": (palette((200, 100, 50)), "png", {"transparency": 0}, (200, 100, 50)),
    "palette, transparent": (palette((200, 100, 50)), "png", {"transparency": 1}, (255, 255, 255)),
    "palette, gif": (palette((200, 100, 50)), "gif", {}, (200, 100, 50)),
    "rgba, opaque": (Image.new("RGBA", (30, 20), (200, 100, 50, 255)), "png", {}, (200, 100, 50)),
    "rgba, transparent": (Image.new("RGBA", (30, 20), (200, 100, 50, 0)), "png", {}, (255, 255, 255)),
    "rgba, half": (Image.new("RGBA", (30, 20), (255, 55, 155, 51)), "webp", {"lossless": True}, (255, 215, 235)),
    "grey with alpha": (Image.new("LA", (30, 20), (55, 51)), "png", {}, (215, 215, 215)),
    "rgb, one colour transparent": (
        Image.new("RGB", (30, 20), (1, 2, 3)),
        "png",
        {"transparency": (1, 2, 3)},
        (255, 255, 255),
    ),
    "16 bits, black": (grey_16(0), "png", {}, (0, 0, 0)),
    "16 bits, grey": (grey_16(0x4040), "png", {}, (0x40, 0x40, 0x40)),
    "16 bits, white": (grey_16(0xFFFF), "tiff", {}, (255, 255, 255)),
    "16 bits, pgm": (grey_16(0x8080), "pgm", {}, (128, 128, 128)),
    "cmyk": (Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "tiff", {}, (255, 0, 0)),
    "cmyk, jpeg": (Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "jpg", {"quality": 100}, (255, 0, 0)),
    "ycbcr": (Image.new("RGB", (30, 20), (200, 100, 50)).convert("YCbCr"), "tiff", {}, (200, 100, 50)),
    "bmp": (Image.new("RGB", (30, 20), (200, 100, 50)), "bmp", {}, (200, 100, 50)),
}


@pytest.mark.parametrize("kind", MODES)
def test_modes(tmp_path: Path, kind: str) -> None:
    image, suffix, options, colour = MODES[kind]
    photo = load(saved(image, tmp_path / f"a.{suffix}", **options))
    assert photo.size == (30, 20)
    assert photo.pixels.shape == (32, 64, 3)
    assert difference(photo.pixels, np.broadcast_to(np.array(colour, dtype=np.uint8), photo.pixels.shape)) <= 2


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    """A PNG file of any bit depth; Pillow writes 16 bits of grey only."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    rows = b"".join(
        b"\0" + row for row in (data[i : i + len(data) // height] for i in range(0, len(data), len(data) // height))
    )
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bits_a_colour(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(4, 2, 16, 2, struct.pack(">3H", 0xFFFF, 0x8080, 0) * 8))
    assert (load(tmp_path / "a.png").pixels == (255, 128, 0)).all()


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (load(path).pixels == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("F", (8, 8), 0.5), "floating-point values without a defined white level"),
        (Image.new("I", (8, 8), 70000), "values from 70000 to 70000; at most 16 bits are read"),
    ],
)
def test_values_of_unknown_range(tmp_path: Path, image: Image.Image, reason: str) -> None:
    with pytest.raises(PhotoError) as error:
        load(saved(image, tmp_path / "a.tiff"))
    assert error.value.reason == reason


# Files that are no photos


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = saved(scene(90, 50), tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:-200])
    (tmp_path / "header.jpg").write_bytes(whole[:20])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "picture.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    for name, reason in {
        "cut.jpg": "image file is truncated",
        "header.jpg": "",
        "empty.jpg": "the file is empty",
        "text.jpg": "not a photo, or damaged at its beginning; JPEG, PNG, WEBP",
        "picture.eps": "not a photo, or damaged",
        "pipe.jpg": "not a file",
        "link.jpg": "no such file",
        "missing.jpg": "no such file",
        "long" * 99 + ".jpg": "File name too long",
    }.items():
        path = tmp_path / name
        with pytest.raises(PhotoError) as error:
            load(path)
        assert error.value.reason.startswith(reason)
        assert "\n" not in error.value.reason
        assert str(error.value) == f"{path}: {error.value.reason}"
        assert is_photo(path) == (name == "cut.jpg")


def test_a_photo_in_memory(tmp_path: Path) -> None:
    path = saved(scene(30, 20), tmp_path / "a.png")
    photo = load_photo(PhotoFile(Path("nowhere"), data=path.read_bytes()), PhotoForm(64))
    np.testing.assert_array_equal(photo.pixels, load(path).pixels)
    with pytest.raises(DataError, match="a photo is a path, or an image of Pillow, not NoneType: None"):
        load_photo(None, PhotoForm(64))  # type: ignore[arg-type]
    for data, reason in ((b"", "the file is empty"), (b"bread, milk", "not a photo, or damaged at its beginning")):
        with pytest.raises(NoPhotoError) as error:
            load_photo(PhotoFile(Path("nowhere"), data=data), PhotoForm(64))
        assert error.value.reason.startswith(reason)


def test_more_pixels_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the header alone; Pillow's own limit is higher, or another program's."""
    path = saved(scene(30, 20), tmp_path / "a.png")
    assert load_photo(path, PhotoForm(64), max_pixels=600).size == (30, 20)
    monkeypatch.setattr("xgpt_fairseq.vision.photos._read", None)
    with pytest.raises(LargePhotoError, match=r"a\.png: the photo has 30 x 20 pixels; at most 0.000599 megapixels are"):
        load_photo(path, PhotoForm(64), max_pixels=599)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(LargePhotoError, match=r"the photo has more than 0\.0005 megapixels"):
        load_photo(path, PhotoForm(64), max_pixels=500)
    with pytest.raises(PhotoError, match="decompression bomb") as error:
        load_photo(path, PhotoForm(64))
    assert type(error.value) is PhotoError


def test_a_photo_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(scene(9, 9), tmp_path / "a.png")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PhotoError) as error:
        load(path)
    assert error.value.reason == "Permission denied"


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xgpt_fairseq.vision import photo_formats

    photo_formats.known_formats.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r'photos are read with Pillow: pip install "xgpt-fairseq\[photos\]"'):
        load_photo(tmp_path / "a.png")
