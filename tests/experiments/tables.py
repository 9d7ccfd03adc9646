"""Scores as the stages of a table leave them."""

from __future__ import annotations

import json
from pathlib import Path


def write_scores(folder: Path, per_image: list[float] | None = None, **scores: float) -> None:
    """Scores of a corpus, and CIDEr of each image where it is compared with another row's, or else none."""
    folder.mkdir(parents=True)
    images = {str(n): {"CIDEr": value} for n, value in enumerate(per_image or [])} or {"0": scores}
    (folder / "scores-test.json").write_text(json.dumps({"scores": scores, "per_image": images}))
