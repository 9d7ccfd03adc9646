"""Small region stores, whole and broken, for the tests of what reads and checks them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from xgpt_fairseq.regions.writer import RegionWriter

WIDTH = 8


def write_store(path: Path, counts: tuple[int, ...] = (3, 1, 5, 2), **options: Any) -> Path:
    """Images "10", "11", …; feature values say image and region; 5 rows a shard."""
    with RegionWriter(path, WIDTH, shard_bytes=128 + 2 * WIDTH * 5, **options) as writer:
        for index, count in enumerate(counts):
            features = np.full((count, WIDTH), index, dtype=np.float32)
            features[:, 1] = np.arange(count)
            boxes = np.tile(np.array([0.1, 0.2, 0.6, 0.9], dtype=np.float32), (count, 1))
            writer.add(
                10 + index,
                features,
                boxes,
                scores=np.linspace(0.9, 0.1, count),
                labels=[f"thing {region}" for region in range(count)],
                size=(640, 480 + index),
                position=index + 1,
            )
        writer.finish()
    return path


def rewrite(path: Path, name: str, array: np.ndarray) -> None:
    """Replace an array and its entry in store.json: what verify finds then is wrong contents, not a wrong checksum."""
    manifest = json.loads((path / "store.json").read_text())
    entries = [*manifest["arrays"].values(), *manifest["shards"]]
    [entry] = [entry for entry in entries if entry["file"] == name]
    np.save(path / name, array)
    if "shape" in entry:
        entry["shape"] = array.shape
    entry["bytes"] = (path / name).stat().st_size
    entry["crc32"] = f"{zlib.crc32(array.tobytes()):08x}"
    (path / "store.json").write_text(json.dumps(manifest))
