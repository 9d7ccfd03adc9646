"""Region stores beside the tiny one."""

from __future__ import annotations

from pathlib import Path

from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter


def other_features(store: Path, path: Path) -> Path:
    """A store at *path* of the same images and boxes as *store*, with other features."""
    old = RegionStore(store)
    with RegionWriter(path, old.feature_dim) as writer:
        for row, image_id in enumerate(old.image_ids()):
            writer.add(image_id, old.features(row) + 1, old.boxes(row), position=row + 1)
        writer.finish()
    return path
