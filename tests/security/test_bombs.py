"""Small files that claim, or unpack to, more than memory holds: refused by what they claim, or read within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.security.limits import refusal
from xgpt_fairseq.archives.hdf5 import find_array
from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.json_values import load_json
from xgpt_fairseq.captions.registry import read_captions
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io import arrays, arrow_tables, text_lines
from xgpt_fairseq.io.arrays import load_array
from xgpt_fairseq.io.text_lines import numbered_lines
from xgpt_fairseq.vision.packing import load_tensors
from xgpt_fairseq.vision.photo_files import find_photos
from xgpt_fairseq.vision.photos import LARGEST_FILE, PhotoError, load_photo

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")
GIGABYTE = 1 << 30


def photo_refusal(path: Path, megabytes: int = 512) -> str:
    return refusal(lambda: [load_photo(photo) for photo in find_photos([path])], megabytes)


# Photos


def png(width: int, height: int, bits: int, colour: int, rows: int | None = None) -> bytes:
    """Black, of *rows* rows whatever its header says; thousands of times smaller than its pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj()
    row = bytes(1 + width * bits * {0: 1, 2: 3, 6: 4}[colour] // 8)
    body = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    """A screen of one pixel, whose first frame is larger."""
    small = io.BytesIO()
    Image.new("P", (1, 1)).save(small, "GIF")
    data = bytearray(small.getvalue())
    at = data.index(b"\x2c")
    data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "WEBP", lossless=True)
    data = bytearray(small.getvalue())
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png(13_400, 13_400, 8, 0, rows=1)),  # 179.6 megapixels; the limit is 178 956 970
        ("a.png", png(100_000, 100_000, 16, 6, rows=1)),
        ("a.gif", gif(65_535, 65_535)),
        ("a.webp", webp(16_384, 16_384)),
        ("a.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)),
        ("a.ppm", b"P6 50000 50000 255\n"),
        ("a.pgm", b"P5 50000 50000 65535\n"),
    ],
)
def test_a_photo_of_more_than_179_megapixels(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "pixels" in photo_refusal(tmp_path / name, 64)


def test_sixteen_bits_take_no_more_memory_than_eight(tmp_path: Path) -> None:
    """Once they were widened to 64 bits as a whole: 600 MB for this photo of 25 megapixels, of 50 KB."""
    (tmp_path / "a.png").write_bytes(png(5000, 5000, 16, 0))
    assert photo_refusal(tmp_path / "a.png", 220) == "read"


def test_of_many_frames_the_first_is_read(tmp_path: Path) -> None:
    """1 000 frames of 16 megapixels, of 20 KB each: 16 GB if all of them were kept."""
    first = io.BytesIO()
    Image.new("P", (4000, 4000)).save(first, "GIF")
    data = first.getvalue()
    (tmp_path / "a.gif").write_bytes(data[:-1] + 999 * data[data.index(b"\x2c") : -1] + b";")
    assert photo_refusal(tmp_path / "a.gif", 256) == "read"


def test_a_file_of_gigabytes_is_no_photo(tmp_path: Path) -> None:
    """Some formats' readers take the whole file into memory, at first."""
    for name, head in (("a.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 "), ("a.avif", b"\0\0\0\x20ftypavif")):
        with open(tmp_path / name, "wb") as file:
            file.write(head)
            file.truncate(3 * GIGABYTE)  # a hole: it takes no room
        assert f"of a photo at most {LARGEST_FILE:,} are read" in photo_refusal(tmp_path / name, 64)


# Tars


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that claims any size, also one beyond what tarfile writes."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def read_tar(path: Path) -> str:
    """What becomes of its photos and its captions; both are refused."""
    photos = photo_refusal(path, 64)
    captions = refusal(lambda: list(read_captions(path, "tar", CaptionOptions(unknown_split="train"))), 64)
    assert "read" not in (photos, captions)
    return f"{photos}\n{captions}"


@pytest.mark.parametrize("size", [10 * GIGABYTE, 1 << 62, 1 << 80])
@pytest.mark.parametrize("kind", [b"0", b"L", b"K", b"x", b"g", b"S"])
def test_a_member_that_claims_gigabytes(tmp_path: Path, kind: bytes, size: int) -> None:
    (tmp_path / "a.tar").write_bytes(tar_header("a.jpg", size, kind) + bytes(1024))
    read_tar(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (b"0", "a.jpg", "of a photo at most"),
        (b"L", "a.jpg", "a name or another record in it has 3,221,225,472 bytes"),
        (b"x", "a.jpg", "a name or another record in it has 3,221,225,472 bytes"),
    ],
)
def test_a_member_that_has_gigabytes(tmp_path: Path, kind: bytes, name: str, message: str) -> None:
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(tar_header(name, 3 * GIGABYTE, kind))
        file.truncate(3 * GIGABYTE + 2048)
    assert message in photo_refusal(tmp_path / "a.tar", 64)


def test_a_text_of_gigabytes(tmp_path: Path) -> None:
    """Beside a photo, in a tar and in a folder."""
    photo = io.BytesIO()
    Image.new("RGB", (8, 8)).save(photo, "JPEG")
    head = tar_header("a.jpg", len(photo.getvalue())) + photo.getvalue().ljust(1024, b"\0")[:1024]
    assert len(photo.getvalue()) <= 1024
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(head[: 512 + -(-len(photo.getvalue()) // 512) * 512])
        file.write(tar_header("a.txt", 3 * GIGABYTE))
        file.truncate(file.tell() + 3 * GIGABYTE + 1024)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo.getvalue())
    with open(folder / "a.txt", "wb") as file:
        file.truncate(3 * GIGABYTE)
    for path in (tmp_path / "a.tar", folder):
        said = refusal(lambda path=path: list(read_captions(path, "auto", CaptionOptions(unknown_split="train"))), 64)
        assert "has 3,221,225,472 bytes; of a photo's text at most 16 MiB are read" in said


def test_headers_without_end(tmp_path: Path) -> None:
    record = tar_header("x", 20, b"x") + b"20 path=aaaaaaaaaaa\n".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(record * 3000 + bytes(1024))
    assert "recursion" in read_tar(tmp_path / "a.tar")


def test_links_and_devices_in_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
    for photo in find_photos([tmp_path / "a.tar"]):
        with pytest.raises(PhotoError, match="a link or another special file in the tar, not a photo itself"):
            load_photo(photo)


# Packed text, arrays, tables


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed_text(
    tmp_path: Path, ending: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"captions.json{ending}"
    path.write_bytes(pack(b"[" + b" " * (1 << 24) + b"]"))
    monkeypatch.setattr(text_lines, "LARGEST_UNPACKED", 1 << 22)
    with pytest.raises(DataError, match="unpacked, it has more than 4,194,304 bytes, many times those of the file"):
        load_json(path)
    with pytest.raises(DataError, match="line 1 is longer than 16 MiB"):
        list(numbered_lines(path))
    monkeypatch.setattr(text_lines, "LARGEST_UNPACKED", 1 << 28)
    assert load_json(path) == []


def test_packed_text_that_is_large_as_text_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "LARGEST_UNPACKED", 1 << 10)
    text = [{"id": number, "caption": f"a dog {number % 97}"} for number in range(2000)]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(text).encode()))
    assert load_json(tmp_path / "a.json.gz") == text


def test_a_zip_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its header says, and the zip: what is unpacked is counted."""
    monkeypatch.setattr(arrays, "LARGEST_ARRAY", 1 << 24)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        for _ in range(128):
            file.write(bytes(1 << 20))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 18
    assert "has more than the 16 MiB that are read" in refusal(lambda: load_array(tmp_path / "a.npz", "x"), 64)


@pytest.mark.parametrize("read", [load_checkpoint, lambda path: load_tensors("weights", path)])
def test_a_checkpoint_that_is_compressed(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path, whole = tmp_path / "a.pt", tmp_path / "whole.pt"
    torch.save({"model": {"weight": torch.zeros(3)}}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
        for info in archive.infolist():
            other.writestr(info.filename, archive.read(info) + bytes(1 << 20))
    assert "is compressed, which torch never does" in refusal(lambda: read(path))
    assert refusal(lambda: read(whole)) == "read"


def test_a_column_that_is_far_larger_than_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra datasets is not installed")
    pytest.importorskip("pyarrow.parquet")

    photo = io.BytesIO()
    Image.new("RGB", (8, 8)).save(photo, "PNG")
    for name, extra in (("bomb", 1 << 22), ("whole", 0)):
        rows = [{"image": {"bytes": photo.getvalue() + bytes(extra), "path": "a.png"}, "caption": "A dog."}]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet", compression="zstd")
    monkeypatch.setattr(arrow_tables, "LARGEST_UNPACKED", 1 << 20)
    [bomb], [whole] = (find_photos([tmp_path / f"{name}.parquet"]) for name in ("bomb", "whole"))
    with pytest.raises(PhotoError, match=r"column image.bytes has 4,1\d\d,\d\d\d bytes, unpacked from"):
        load_photo(bomb)
    assert load_photo(whole).size == (8, 8)


# HDF5, which can also lead elsewhere


def test_an_array_in_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """External links, virtual arrays and external storage would read any file that the user may read."""
    h5py = pytest.importorskip("h5py", reason="the extra archives is not installed")
    monkeypatch.chdir(tmp_path)
    Path("secret.bin").write_bytes(np.full((2, 8), 7, np.float32).tobytes())
    with h5py.File("secret.h5", "w") as file:
        file["x"] = np.ones((2, 8), np.float32)
    with h5py.File("a.h5", "w") as file:
        file["own"] = np.zeros((2, 8), np.float32)
        file["group/own"] = np.zeros((2, 8), np.float32)
        file["link"] = h5py.ExternalLink("secret.h5", "/x")
        file["folder"] = h5py.ExternalLink("secret.h5", "/")
        file["soft"] = h5py.SoftLink("/link")
        layout = h5py.VirtualLayout((2, 8), "f4")
        layout[:] = h5py.VirtualSource("secret.h5", "x", shape=(2, 8))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("storage", (2, 8), "f4", external=[("secret.bin", 0, 64)])
        assert all((file[name][()] > 0).all() for name in ("link", "folder/x", "soft", "virtual", "storage"))
    for name in ("link", "folder/x", "soft"):
        with pytest.raises(DataError, match="it is a link, perhaps to another file; links are not followed"):
            find_array(Path("a.h5"), name)
    for name in ("virtual", "storage"):
        with pytest.raises(DataError, match="its values are in another file, which is not read"):
            find_array(Path("a.h5"), name)
    for name in ("own", "group/own"):
        found = find_array(Path("a.h5"), name)
        assert found is not None and found.shape == (2, 8)
    assert find_array(Path("a.h5"), "nothing") is None


def test_what_hdf5_would_unpack(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra archives is not installed")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("large", (1 << 20, 2048), "f4")  # has no bytes in the file
        file.create_dataset("chunks", (2, 8), "f4", maxshape=(None, 8), chunks=(1 << 24, 8), compression="gzip")
        file.create_dataset("texts", data=["a", "b"], dtype=h5py.string_dtype())
    for name, message in (
        ("large", "at most 256 MiB are read"),
        ("chunks", "at most 256 MiB are read"),
        ("texts", "not of numbers"),
    ):
        assert message in refusal(lambda name=name: find_array(path, name), 128)
