"""xgpt-regions: info, verify, show."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.cli import regions
from xgpt_fairseq.regions.writer import RegionWriter


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two images, of 2 and 12 regions, in two shards."""
    path = tmp_path / "store"
    with RegionWriter(path, 2, shard_bytes=128 + 2 * 2 * 12, source={"format": "npz-dir", "boxes": "pixel"}) as writer:
        for image_id, count in (("42", 2), ("dog", 12)):
            features = np.tile(np.array([3.0, 4.0]), (count, 1))
            boxes = np.tile(np.array([0.0, 0.25, 0.5, 1.0]), (count, 1))
            scores = np.linspace(0.75, 0.25, count)
            labels = [f"thing {region}" for region in range(count)]
            writer.add(image_id, features, boxes, scores=scores, labels=labels, size=(640, 480), position=0)
        writer.finish()
    return path


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["xgpt-regions", *map(str, arguments)])
    status = 0
    try:
        regions.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_info(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(monkeypatch, capsys, "info", store)
    assert status == 0
    lines = out.splitlines()
    assert lines[:9] == [
        f"store          {store}",
        "images         2",
        "regions        14",
        "per image      min 2, mean 7.0, max 12",
        "cut            0 images had more regions than were kept",
        "feature width  2",
        "stored with    scores, labels, sizes",
        "shards         2",
        f"size on disk   {sum(file.stat().st_size for file in store.glob('*.npy')) / 1e6:.1f} MB",
    ]
    assert lines[9:12] == ["regions per image", f"    1-10          1 {'#' * 40}", f"   11-20          1 {'#' * 40}"]
    assert lines[12:] == ["source", "  format: npz-dir", "  boxes: pixel"]


def test_verify(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    size = sum(file.stat().st_size for file in store.glob("*.npy"))
    assert call(monkeypatch, capsys, "verify", store)[:2] == (
        0,
        f"OK: 2 images, 14 regions, 2 shard(s), {size} bytes\n",
    )


def test_verify_names_the_first_bad_shard(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("features-00000.npy", "features-00001.npy"):
        data = bytearray((store / name).read_bytes())
        data[-1] ^= 1
        (store / name).write_bytes(bytes(data))
    status, out, err = call(monkeypatch, capsys, "verify", store)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {store}/features-00000.npy is damaged: checksum ")
    assert err.count("\n") == 1


def test_show(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(monkeypatch, capsys, "show", store, "COCO_val2014_000000000042.jpg")
    assert status == 0
    assert out.splitlines() == [
        "image 42, row 0: 2 regions, 640 x 480 pixels",
        "region      x1      y1      x2      y2     score      norm  label",
        "     0  0.0000  0.2500  0.5000  1.0000    0.7500     5.000  thing 0",
        "     1  0.0000  0.2500  0.5000  1.0000    0.2500     5.000  thing 1",
    ]


def test_show_an_image_that_is_not_there(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, capsys, "show", store, "43") == (
        1,
        "",
        f"error: image '43' is not in the region store {store}\n",
    )


@pytest.mark.parametrize("command", [["info"], ["verify"], ["show", "1"]])
def test_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    name, *rest = command
    status, out, err = call(monkeypatch, capsys, name, tmp_path / "nothing", *rest)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: no region store at {tmp_path / 'nothing'}")
