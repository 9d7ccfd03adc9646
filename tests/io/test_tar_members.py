"""Tars: their files and where they lie; tars that are compressed, cut or damaged."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.tars import write_tar
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.tar_members import DamagedTarError, is_tar, read_member, tar_members

FILES = {"a.jpg": b"photo", "./x/b.txt": b"", "/c" + "long" * 60 + ".jpg": b"x" * 1000, "x/.d": b"hidden"}


def test_members(tmp_path: Path) -> None:
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / "a.tar"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tarfile, "DEFAULT_FORMAT", style)
            patch.setattr(tarfile.TarFile, "format", style)
            write_tar(path, FILES)
        members = list(tar_members(path))
        assert [member.name for member in members] == ["a.jpg", "x/b.txt", "c" + "long" * 60 + ".jpg", "x/.d"]
        assert [read_member(path, member) for member in members] == list(FILES.values())
        assert [member.is_hidden for member in members] == [False, False, False, True]
        assert not any(member.reason for member in members)


def test_folders_and_links(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.jpg").write_bytes(b"photo")
    (tmp_path / "x" / "2.jpg").symlink_to("1.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "x", "x")
    reasons = {member.name: member.reason for member in tar_members(tmp_path / "a.tar")}
    assert reasons == {"x/1.jpg": "", "x/2.jpg": "a link or another special file in the tar, not a photo itself"}


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_tars(tmp_path: Path, compression: str) -> None:
    for name in (f"a.tar.{compression}", "a.tar"):
        path = write_tar(tmp_path / name, FILES, f"w:{compression}")
        assert is_tar(path)
        with pytest.raises(
            DataError, match=f"{name} is a compressed tar, of which no member can be read without those"
        ):
            list(tar_members(path))


def test_what_is_a_tar(tmp_path: Path) -> None:
    assert is_tar(write_tar(tmp_path / "shard", FILES))
    (tmp_path / "a.tar").write_text("no tar")
    (tmp_path / "a.txt.gz").write_bytes(b"\x1f\x8bno gzip")
    for name in ("a.tar", "a.txt.gz", "gone.tar", "."):
        assert not is_tar(tmp_path / name)
    with pytest.raises(DamagedTarError, match=r"a\.tar: no tar, or cut or damaged behind its beginning"):
        list(tar_members(tmp_path / "a.tar"))
    with pytest.raises(DataError, match=r"gone\.tar cannot be read: No such file"):
        list(tar_members(tmp_path / "gone.tar"))


def test_tars_that_are_cut_or_damaged_at_any_place(tmp_path: Path) -> None:
    """What is before the damage is found, and the damage is not taken for the end."""
    whole = write_tar(tmp_path / "whole.tar", {f"{number}.jpg": bytes([65 + number]) * 700 for number in range(4)})
    content = whole.read_bytes()
    block = 512 + 1024  # a header, and content in blocks
    path = tmp_path / "a.tar"

    def found() -> list[str]:
        names = []
        with pytest.raises(DamagedTarError):
            for member in tar_members(path):
                names.append(member.name)
        return names

    for length, before in ((block + 200, 1), (2 * block + 100, 2), (2 * block + 600, 3)):
        path.write_bytes(content[:length])
        assert len(found()) == before
    for place in (block + 10, 2 * block + 150):  # within headers
        path.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
        assert len(found()) == place // block
    path.write_bytes(content + content)
    assert len(found()) == 4
    path.write_bytes(content[: 4 * block])  # without its end, and yet whole
    assert len(list(tar_members(path))) == 4


def test_a_tar_that_was_cut_since(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    first, *_ = tar_members(path)
    path.write_bytes(path.read_bytes()[:515])
    with pytest.raises(DamagedTarError, match=r"a\.tar: cut within a\.jpg"):
        read_member(path, first)
