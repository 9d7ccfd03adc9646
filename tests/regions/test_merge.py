"""Parts of a store, as a detector's extraction makes them, merged: nothing of them is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.folders import contents
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.merge import merge
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.regions.writer import RegionWriter

pytestmark = pytest.mark.usefixtures("no_fsync")

IMAGES, WIDTH = 12, 8


def write(path: Path, images: Sequence[int], *, shard: tuple[int, int] | None = None, labels: bool = True) -> Path:
    """A store of 1 to 6 regions an image with scores and labels, of which the four best are kept; a part, by *shard*.

    Args:
        shard: which part of how many.
    """
    source: dict[str, object] = {"files": IMAGES}
    if shard is not None:
        source["shard"] = {"index": shard[0], "count": shard[1], "first": images[0], "files": len(images)}
    with RegionWriter(path, WIDTH, max_regions=4, source=source) as writer:
        for position, image in enumerate(images, start=1):
            rng, count = np.random.default_rng(image), 1 + image % 6
            writer.add(
                image,
                rng.normal(size=(count, WIDTH)),
                np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4),
                scores=rng.random(count),
                labels=[f"thing {region} of {image}" for region in range(count)] if labels else None,
                size=(640, 480 + image),
                position=position,
            )
        writer.finish()
    return path


def two_parts(folder: Path) -> list[Path]:
    """The second before the first: parts are numbered."""
    return [write(folder / "b", range(7, IMAGES), shard=(1, 2)), write(folder / "a", range(7), shard=(0, 2))]


def test_a_copy_is_the_store_of_one_run(tmp_path: Path) -> None:
    whole, seen = write(tmp_path / "whole", range(IMAGES)), list[int]()
    merged = merge(two_parts(tmp_path), tmp_path / "merged", way="copy", progress=seen.append)
    assert contents(merged.path) == contents(whole)
    assert merged.manifest.truncated_images == 4 and sum(seen) == IMAGES


@pytest.mark.parametrize("way", ["link", "refer"])
def test_joined_parts_have_all_arrays(tmp_path: Path, way: str) -> None:
    whole, seen = verify(write(tmp_path / "whole", range(IMAGES))), list[int]()
    merge(two_parts(tmp_path), tmp_path / "merged", way=way, progress=seen.append)
    merged = verify(tmp_path / "merged")
    assert list(merged.manifest.arrays) == list(whole.manifest.arrays)
    assert {"scores", "labels", "sizes"} < merged.manifest.arrays.keys()
    for name in whole.manifest.arrays:
        np.testing.assert_array_equal(merged.array(name), whole.array(name))
        assert merged.array(name).dtype == whole.array(name).dtype
    for image in range(IMAGES):
        np.testing.assert_array_equal(merged.features(image), whole.features(image))
    assert merged.manifest.truncated_images == whole.manifest.truncated_images == 4
    assert (merged.source, sum(seen)) == (whole.source, IMAGES)


@pytest.mark.parametrize("way", ["link", "copy"])
def test_an_image_in_two_parts(tmp_path: Path, way: str) -> None:
    """It is the first of both: parts end there."""
    images = ([0, 1, 2], [4, 5, 6], [4, 8, 9])
    one, *others = (write(tmp_path / str(i), each, shard=(i, 3)) for i, each in enumerate(images))
    message = f"image 4 is in two parts, {others[0]} and {others[1]}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        merge([one, *others], tmp_path / "merged", way=way)
    assert not (tmp_path / "merged").exists()


def test_parts_with_and_without_labels(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a", range(7), shard=(0, 2)), tmp_path / "b"
    write(other, range(7, IMAGES), shard=(1, 2), labels=False)
    arrays = ["boxes", "ids", "labels", "offsets", "scores", "sizes"]
    message = f"{other} has {[name for name in arrays if name != 'labels']}, {one} has {arrays}"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        merge([one, other], tmp_path / "merged")
