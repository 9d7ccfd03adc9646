"""Photos are read, found and named as by the product: by the same code where it can be the same, else compared."""

from __future__ import annotations

import inspect
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.security.test_bombs import tar_header
from tests.tars import write_tar
from xgpt_fairseq.io import tar_members
from xgpt_fairseq.regions import image_ids
from xgpt_fairseq.vision import photo_files, photo_formats, photos
from xgpt_runtime import files as lite_files
from xgpt_runtime import photos as lite_photos
from xgpt_runtime import tars as lite_tars
from xgpt_runtime.errors import DataError

FORM, LITE_FORM = photos.PhotoForm(96, 32), lite_photos.PhotoForm(96, 32, False, "bilinear")


@pytest.mark.parametrize("name", ["_read", "_eight_bits", "_from_sixteen_bits", "_reason", "Photo"])
def test_photos_are_read_by_the_same_code(name: str) -> None:
    assert inspect.getsource(getattr(lite_photos, name)) == inspect.getsource(getattr(photos, name))


@pytest.mark.parametrize(
    "name",
    ["canonical_image_id", "name_parts", "path_of_url", "_last_part", "is_number", "is_photo_name", "shortest_ids"],
)
def test_photos_are_named_by_the_same_code(name: str) -> None:
    assert inspect.getsource(getattr(lite_files, name)) == inspect.getsource(getattr(image_ids, name))


@pytest.mark.parametrize("name", ["DamagedTarError", "_Records", "_members", "tar_members", "has_compressed_tar_name"])
def test_tars_are_read_by_the_same_code(name: str) -> None:
    assert inspect.getsource(getattr(lite_tars, name)) == inspect.getsource(getattr(tar_members, name))


@pytest.mark.parametrize("size", [10 << 30, 1 << 62, 1 << 80])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"S"])
def test_a_member_of_a_tar_that_claims_gigabytes(kind: bytes, size: int, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_header("a.jpg", size, kind) + bytes(1024))
    with pytest.raises(DataError):
        for member in lite_tars.tar_members(tmp_path / "a.tar"):
            lite_tars.read_member(tmp_path / "a.tar", member.offset, member.size)


def test_the_same_formats_and_limits() -> None:
    assert lite_tars._LARGEST_RECORD == tar_members._LARGEST_RECORD
    assert lite_files._PHOTO_EXTENSIONS == image_ids._PHOTO_EXTENSIONS
    assert (lite_photos.DRAFT, lite_photos.REDUCING_GAP) == (photos.DRAFT, photos.REDUCING_GAP)
    assert lite_photos.FORMATS == photo_formats.FORMATS
    assert lite_photos.known_formats() == photo_formats.known_formats()


@given(
    st.integers(1, 30000), st.integers(1, 30000), st.integers(1, 40), st.booleans(),
    st.sampled_from([14, 16, 32]),
)  # fmt: skip
def test_sizes(width: int, height: int, cells: int, square: bool, stride: int) -> None:
    form = photos.PhotoForm(cells * stride, stride, square)
    lite = lite_photos.PhotoForm(cells * stride, stride, square, "bilinear")
    assert lite.size_of(width, height) == form.size_of(width, height)


def scene(width: int = 200, height: int = 131) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=2).astype(np.uint8))


def samples(folder: Path) -> list[Path]:
    """Photos of all kinds, and files that are none."""
    image, made = scene(), []

    def save(name: str, picture: Image.Image, **options: object) -> None:
        picture.save(folder / name, **options)
        made.append(folder / name)

    save("rgb.jpg", image)
    save("large.jpg", scene(2400, 1800))
    save("cmyk.jpg", image.convert("CMYK"))
    save("grey.jpg", image.convert("L"))
    save("alpha.png", Image.merge("RGBA", (*image.split(), Image.linear_gradient("L").resize(image.size))))
    save("palette.gif", image.convert("P"))
    save("see-through.gif", image.convert("P"), transparency=3)
    save("photo.webp", image)
    save("deep.png", Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16))
    save("bits.bmp", image.convert("1"))
    save("flat.tiff", image)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[274] = turn
        save(f"turn{turn}.jpg", image, exif=exif.tobytes())
    content = io.BytesIO()
    image.save(content, "JPEG")
    for name, data in {
        "cut.jpg": content.getvalue()[:900],
        "text.txt": b"bread, milk",
        "empty.jpg": b"",
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1",
    }.items():
        (folder / name).write_bytes(data)
        made.append(folder / name)
    return [*made, folder / "missing.jpg", folder]


def read(load: object, path: Path, form: object) -> object:
    try:
        photo = load(path, form)  # type: ignore[operator]
    except (photos.PhotoError, lite_photos.PhotoError) as error:
        return error.reason.replace("xgpt-runtime[", "xgpt-fairseq[")
    return photo.pixels.tobytes(), photo.pixels.shape, photo.size


def test_every_photo_has_the_same_pixels_and_every_other_file_the_same_reason(tmp_path: Path) -> None:
    paths = samples(tmp_path)
    for path in paths:
        assert read(lite_photos.load_photo, path, LITE_FORM) == read(photos.load_photo, path, FORM), path
        assert lite_photos.is_photo(path) == photos.is_photo(path)
    assert sum(isinstance(read(lite_photos.load_photo, path, LITE_FORM), str) for path in paths) == 6


def test_images_of_pillow(tmp_path: Path) -> None:
    image = scene()
    assert np.array_equal(lite_photos.load_photo(image, LITE_FORM).pixels, photos.load_photo(image, FORM).pixels)
    with pytest.raises(lite_photos.PhotoError, match="image: floating-point values"):
        lite_photos.load_photo(Image.new("F", (9, 9)), LITE_FORM)


@pytest.mark.parametrize("photo", [np.zeros((9, 9, 3), np.uint8), (each for each in "ab"), "photo.jpg" * 99, None])
def test_what_is_no_photo(photo: object) -> None:
    with pytest.raises(DataError, match="a photo is a path, bytes, or an image of Pillow, not ") as refused:
        lite_photos.load_photo(photo, LITE_FORM)  # type: ignore[arg-type]
    assert not isinstance(refused.value, lite_photos.PhotoError) and len(str(refused.value)) < 200


def test_the_same_files_are_found_and_named(tmp_path: Path) -> None:
    for name in (
        "b/1.jpg", "b/2.png", "a/1.jpg", "a/COCO_val2014_000000000042.jpg", ".hidden/1.jpg", "a/.dot.jpg", "a/42.npz",
        "notes.txt", "b/deep/er/7.jpg", "001.webp", "c/notes.txt",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    for paths in (
        [tmp_path], [tmp_path / "b", tmp_path / "a"], [tmp_path / "a" / "1.jpg", tmp_path / "a", tmp_path / "gone.jpg"],
        [],
    ):  # fmt: skip
        expected = [(file.path, file.image_id) for file in photo_files.find_photos(paths)]
        assert [(file.path, file.image_id) for file in lite_files.find_photos(paths)] == expected


def test_photos_on_two_drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: nothing is common to their folders, so that those of one name are named by their whole paths."""
    for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write_tar(tmp_path / "b" / "c.tar", {"in/1.jpg": b"", "in/3.jpg": b""})

    def none_common(_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", none_common)
    found = [file.image_id for file in lite_files.find_photos([tmp_path / "a" / "1.jpg", tmp_path / "b"])]
    whole = lite_files.canonical_image_id(tmp_path.as_posix())
    assert found == [f"{whole}/a/1", f"{whole}/b/1", "2", f"{whole}/b/c.tar/in/1", "3"]


def test_large_files_of_one_name_beside_a_photo(tmp_path: Path) -> None:
    """Videos: whether they are photos is asked only where names are shared."""
    for name in ("a/clip.mp4", "b/clip.mp4"):
        (tmp_path / name).parent.mkdir()
        with (tmp_path / name).open("wb") as file:
            file.truncate(photos.LARGEST_FILE + 1)  # takes no room
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "1.png")
    found = lite_files.find_photos([tmp_path])
    expected = photo_files.find_photos([tmp_path])
    assert [(file.path, file.image_id) for file in found] == [(file.path, file.image_id) for file in expected]
    assert [file.image_id for file in found] == ["1", "clip.mp4", "clip.mp4"]
    lite_files.check_ids(found)


@pytest.mark.parametrize("in_tar", [False, True])
def test_a_file_that_would_fill_the_memory(in_tar: bool, tmp_path: Path) -> None:
    assert lite_files.LARGEST_FILE == photos.LARGEST_FILE
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(photos.LARGEST_FILE + 1)  # takes no room
    found = lite_files.PhotoFile(large)
    if in_tar:
        found = lite_files.PhotoFile(large, tar=large, size=photos.LARGEST_FILE + 1)
    with pytest.raises(lite_photos.PhotoError, match=r"large\.jpg: the file has 1,073,741,825 bytes; of a photo"):
        found.content()
