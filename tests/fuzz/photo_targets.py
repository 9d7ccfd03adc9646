"""Photos as inputs of the fuzzer: files of each format, and in a table."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.captions.test_arrow import parquet


def picture() -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (9, 14, 3)).astype(np.uint8)).resize((56, 36))


def save_photo(path: Path) -> None:
    picture().save(path)


def write_photo(ending: str, folder: Path) -> None:
    save_photo(folder / f"photo.{ending}")


def write_table(folder: Path) -> None:
    content = io.BytesIO()
    picture().save(content, "PNG")
    parquet(folder / "train.parquet", [{"image": {"bytes": content.getvalue(), "path": f"{n}.png"}} for n in range(3)])


def read_photos(folder: Path, _: Path) -> None:
    from xgpt_fairseq.archives.handle_cache import close_cached
    from xgpt_fairseq.errors import DataError
    from xgpt_fairseq.vision.photo_files import find_photos
    from xgpt_fairseq.vision.photos import load_photo

    try:
        error = None
        for photo in find_photos([folder]):
            try:
                loaded = load_photo(photo)
            except DataError as caught:  # one photo, and the next may be whole
                error = caught
                continue
            assert loaded.pixels.dtype == np.uint8 and loaded.pixels.ndim == 3 and min(loaded.size) > 0
        if error is not None:
            raise error
    finally:
        close_cached()
