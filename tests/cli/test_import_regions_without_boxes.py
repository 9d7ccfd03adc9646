"""import_regions.py on features without boxes: grids, and stores that have none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.archives.layouts import LAYOUTS, made_up
from tests.test_hub_interface import build
from xgpt_fairseq.cli import import_regions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify

Call = Callable[..., Any]

WIDTH = 8


@pytest.fixture
def call(call_program: Call, tmp_path: Path) -> Call:
    """call(source, *options): the program, to the store `store`."""

    def call(source: Path, *options: object) -> Any:
        return call_program(import_regions.main, source, "--output", tmp_path / "store", "--overwrite", *options)

    return call


def features(folder: Path, **arrays: np.ndarray) -> Path:
    """A folder of features, as npz with key feat."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.savez(folder / f"{name}.npz", feat=array)
    return folder


def numbered(*shape: int) -> np.ndarray:
    """Features (*shape, WIDTH), of which each row is its number."""
    rows = np.arange(np.prod(shape), dtype=np.float32).reshape(*shape, 1)
    return np.broadcast_to(rows, (*shape, WIDTH))


def test_the_cells_of_a_grid(tmp_path: Path, call: Call) -> None:
    features(tmp_path / "cocogrid" / "att", a=numbered(7, 7), b=numbered(49), c=numbered(4))
    done = call(tmp_path / "cocogrid", "--boxes", "grid")
    assert done.status == 0, done.stderr
    assert "found npz-dir: per-image files in" in done.stdout and ", no boxes" in done.stdout
    store = verify(tmp_path / "store")
    assert store.region_counts().tolist() == [49, 49, 4]
    assert store.source["boxes"] == "grid" and store.has_boxes
    for image_index in (0, 1):
        for row in range(7):
            for column in range(7):
                region = 7 * row + column
                assert store.features(image_index)[region, 0] == region
                expected = [column / 7, row / 7, (column + 1) / 7, (row + 1) / 7]
                np.testing.assert_allclose(store.boxes(image_index)[region], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (numbered(48), "image a has 48 regions, which are not the cells of a square grid"),
        (numbered(14, 14), "a grid of 14 x 14 cells, more than --max-regions 100: pass --max-regions 196"),
        (numbered(33, 33), r"image a has a grid of 33 x 33 cells; 1024 regions are possible \(pool"),
        (numbered(6, 8), r"features are float32 of shape \(6, 8, 8\); floats of \(regions, width\) expected"),
    ],
)
def test_what_is_no_grid(array: np.ndarray, message: str, tmp_path: Path, call: Call) -> None:
    source = features(tmp_path / "att", a=array, b=numbered(9))
    assert re.search(message, call(source, "--boxes", "grid").error)
    assert call(source, "--boxes", "grid", "--skip-broken", 1).status == 0
    assert RegionStore(tmp_path / "store").image_ids() == ["b"]


def test_a_grid_is_not_cut(tmp_path: Path, call: Call) -> None:
    source = features(tmp_path / "att", a=numbered(14, 14))
    assert "pass --max-regions 196 " in call(source, "--boxes", "grid", "--max-regions", 36).error
    assert call(source, "--boxes", "grid", "--max-regions", 196).status == 0
    assert RegionStore(tmp_path / "store").region_counts().tolist() == [196]


def test_no_boxes(tmp_path: Path, call: Call) -> None:
    features(tmp_path / "x_att", a=numbered(3), b=numbered(5))
    for source in (tmp_path / "x_att", tmp_path / "x"):
        assert call(source, "--boxes", "none").status == 0
        store = verify(tmp_path / "store")
        assert not store.has_boxes and store.source["boxes"] == "none"
        assert store.region_counts().tolist() == [3, 5]
        np.testing.assert_array_equal(store.array("boxes"), np.tile([0, 0, 1, 1], (8, 1)))


def test_features_alone_are_no_archive_unless_it_is_said(tmp_path: Path, call: Call) -> None:
    features(tmp_path / "x_att", a=numbered(3))
    assert call(tmp_path / "x_att").error.startswith(f"{tmp_path / 'x_att'}: no known region archive")
    assert "no folders att and box" in call(tmp_path / "x_att", "--format", "npz-dir").error
    assert call(tmp_path / "x_att", "--format", "npz-dir", "--boxes", "none").status == 0
    (tmp_path / "empty").mkdir()
    assert "no known region archive" in call(tmp_path / "empty", "--boxes", "none").error


def test_boxes_that_an_archive_has_do_not_count(tmp_path: Path, call: Call) -> None:
    images = [made_up(number) for number in range(2, 5)]
    for name, layout in LAYOUTS.items():
        source = layout.write(tmp_path / name, images)
        done = call(source, "--boxes", "none")
        assert done.status == 0, done.stderr
        store = RegionStore(tmp_path / "store")
        assert not store.has_boxes
        assert (store.array("boxes") == [0, 0, 1, 1]).all()


def test_a_model_does_not_read_a_store_of_the_other_kind(tmp_path: Path, call: Call, tiny_vocabulary: Path) -> None:
    source = features(tmp_path / "att", a=np.zeros((4, 1280), dtype=np.float32))
    captioner = build(tiny_vocabulary, extractor=False)
    assert call(source, "--boxes", "grid").status == 0
    captioner.check_store(RegionStore(tmp_path / "store"))
    assert call(source, "--boxes", "none").status == 0
    with pytest.raises(DataError, match=r"trained on regions with boxes, those of the region store .* without boxes"):
        captioner.check_store(RegionStore(tmp_path / "store"))
    captioner.model.has_boxes = False
    captioner.check_store(RegionStore(tmp_path / "store"))
