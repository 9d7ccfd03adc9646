"""`xgpt-caption` and photos whose names would break its lines, or are no UTF-8."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from xgpt_fairseq.cli import caption

ODD = {
    b"a\tb.png": rb"a\tb.png", b"a\nb.png": rb"a\nb.png", b"-a.png": b"-a.png", b'a".png': b'a".png',
    b"a:b.png": b"a:b.png", b"a\\b.png": rb"a\\b.png", b"caf\xe9.png": b"caf\xe9.png",
    b"a\x1b[31m.png": rb"a\x1b[31m.png",
    "é.png".encode(): "é.png".encode(),
}  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ODD:
        Image.new("RGB", (64, 48)).save(folder / "photo.png")
        (folder / "photo.png").rename(folder / os.fsdecode(name))
    (folder / "no\nphoto").write_text("bread")
    return folder


def names(values: list[dict[str, str]]) -> set[bytes]:
    return {os.fsencode(Path(each["file"]).name) for each in values}


def test_lines_and_json(odd: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each, also where the terminal's encoding is strict; JSON has the names whole."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace"))
    files = ["--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")]
    caption.main([str(odd), "--path", str(tiny_bundle), *files])
    stdout, stderr = (said.buffer.getvalue() for said in (sys.stdout, sys.stderr) if not said.flush())
    lines = [line.split(b"\t") for line in stdout.rstrip(b"\n").split(b"\n")]
    assert sorted(file for file, _ in lines) == sorted(os.fsencode(odd) + b"/" + shown for shown in ODD.values())
    assert b"not read: " + os.fsencode(odd) + rb"/no\nphoto: " in stderr
    assert names(json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))) == set(ODD)


def test_lines_of_json(odd: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    with open(tmp_path / "list", "wb") as file:
        file.write(b"".join(name + b"\n" for name in ODD if b"\n" not in name))
    for given, found in (
        ([str(odd)], {*ODD, b"no\nphoto"}),
        (["--list", str(tmp_path / "list")], {*ODD} - {b"a\nb.png"}),
    ):
        caption.main([*given, "--path", str(tiny_bundle), "--jsonl", str(tmp_path / "c.jsonl"), "--overwrite"])
        lines = (tmp_path / "c.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        assert names([json.loads(line) for line in lines]) == found
