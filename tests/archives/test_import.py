"""Archives of other projects through import_regions.py: each layout as its project writes it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.archives import layouts
from tests.archives.layouts import LAYOUTS, Image, Layout, made_up
from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.archives.registry import open_archive, readers
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify

IMAGES = [made_up(number) for number in (3, 12, 1003, 9, 20, 7, 8, 2, 2012)]
Call = Callable[..., Any]  # gives conftest's Outcome

# One layout a reader that was added together with these tests.
FORMATS = ["vinvl-tsv", "vlp-h5", "m2-h5", "vilbert-lmdb", "mmf-npy"]


def size_options(layout: Layout, tmp_path: Path, images: Iterable[Image] = IMAGES) -> list[object]:
    return [] if layout.sizes else ["--sizes", layouts.write_sizes(tmp_path / "sizes.json", images)]


def check_store(store: RegionStore, images: Sequence[Image], layout: Layout) -> None:
    """Everything in the store is the images', rounded to float16, in the order of the scores where there are some."""
    assert len(store) == len(images)
    for image in images:
        row = store.image_index(image.name)
        order = np.argsort(-image.scores, kind="stable") if layout.scores else np.arange(len(image.boxes))
        np.testing.assert_array_equal(store.features(row), image.features[order].astype(np.float16))
        np.testing.assert_allclose(store.boxes(row) * np.tile(image.size, 2), image.boxes[order], atol=2e-4)
        assert store.size(row) == image.size
        if layout.scores:
            np.testing.assert_array_equal(store.scores(row), image.scores[order])
        else:
            assert store.scores(row) is None
        if layout.labels:
            prefix = "thing " if layout.format == "vinvl-tsv" else ""
            assert store.labels(row) == [f"{prefix}{number}" for number in image.classes[order]]
        else:
            assert store.labels(row) is None


# What goes in comes out


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name: str, tmp_path: Path, import_archive: Call) -> None:
    layout = LAYOUTS[name]
    source = layout.write(tmp_path / "archive", IMAGES)
    options = size_options(layout, tmp_path)
    outcome = import_archive(source, tmp_path / "store", *options)
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.startswith(f"found {layout.format}: ")
    check_store(verify(tmp_path / "store"), IMAGES, layout)
    # the same with worker processes, which open what they read themselves, and with the format named
    again = import_archive(source, tmp_path / "again", *options, "--workers", 2, "--format", layout.format)
    assert again.status == 0, again.stderr
    assert contents(tmp_path / "store") == contents(tmp_path / "again")


@pytest.fixture(scope="module")
def photos(coco_mini: Path) -> list[Image]:
    """Every tenth photo of coco_mini, with the detector's labels and scores."""
    found = []
    for photo in json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"][::10]:
        name = photo["cocoid"]
        classes = np.array([1 + sorted(set(photo["labels"])).index(label) for label in photo["labels"]])
        found.append(
            Image(
                f"COCO_val2014_{name:012d}",
                np.load(coco_mini / "att" / f"{name}.npz")["feat"].astype(np.float32),
                np.load(coco_mini / "box" / f"{name}.npy"),
                (photo["width"], photo["height"]),
                np.minimum(classes, layouts.CLASSES - 1),
                np.array(photo["scores"], dtype=np.float32),
            )
        )
    return found


@pytest.fixture(scope="module")
def wide_photos(butd_tsv: Path) -> list[Image]:
    """Five photos with 36 features of width 2048 and the 1600 classes of Visual Genome."""
    found = []
    for line in (butd_tsv / "train2014_obj36.tsv").read_text().splitlines():
        fields = line.split("\t")
        classes, scores, boxes, features = (
            np.frombuffer(base64.b64decode(fields[column]), dtype=dtype)
            for column, dtype in ((3, "<i8"), (4, "<f4"), (8, "<f4"), (9, "<f4"))
        )
        size = int(fields[2]), int(fields[1])
        found.append(Image(fields[0], features.reshape(36, 2048), boxes.reshape(36, 4), size, 1 + classes % 10, scores))
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("data", ["photos", "wide_photos"])
def test_real_photos(
    name: str, data: str, request: pytest.FixtureRequest, tmp_path: Path, import_archive: Call
) -> None:
    images: list[Image] = request.getfixturevalue(data)
    layout = LAYOUTS[name]
    source = layout.write(tmp_path / "archive", images)
    outcome = import_archive(source, tmp_path / "store", *size_options(layout, tmp_path, images), "--workers", 2)
    assert outcome.status == 0, outcome.stderr
    store = RegionStore(tmp_path / "store")
    assert store.feature_dim == (1280 if data == "photos" else 2048)
    for image in images:
        row = store.image_index(image.name)
        order = np.argsort(-image.scores, kind="stable") if layout.scores else np.arange(len(image.boxes))
        np.testing.assert_array_equal(store.features(row), image.features[order].astype(np.float16))
        np.testing.assert_allclose(store.boxes(row) * np.tile(image.size, 2), image.boxes[order], atol=1e-3)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(protocol: int, tmp_path: Path, import_archive: Call) -> None:
    source = layouts.write_vilbert(tmp_path / "archive", IMAGES, protocol=protocol)
    assert import_archive(source, tmp_path / "store").status == 0
    check_store(verify(tmp_path / "store"), IMAGES, LAYOUTS["vilbert-lmdb"])


def test_half_precision(tmp_path: Path, import_archive: Call) -> None:
    """Unified VLP's largest sets are float16, their boxes, too: classes come out exactly, boxes to half a pixel."""
    source = layouts.write_vlp(tmp_path / "archive", IMAGES, dtype="float16")
    options = size_options(LAYOUTS["vlp-h5"], tmp_path)
    assert import_archive(source, tmp_path / "store", *options).status == 0
    store = verify(tmp_path / "store")
    for image in IMAGES:
        row, order = store.image_index(image.name), np.argsort(-image.scores.astype(np.float16), kind="stable")
        np.testing.assert_array_equal(store.features(row), image.features[order].astype(np.float16))
        np.testing.assert_allclose(store.boxes(row) * np.tile(image.size, 2), image.boxes[order], atol=0.5)
        assert store.labels(row) == [str(number) for number in image.classes[order]]


def test_regions_without_a_box(tmp_path: Path, import_archive: Call) -> None:
    """Unified VLP fills up to 100 regions with boxes of no size, class 0 and confidence 0: they stay, at the end."""
    image = made_up(5, count=4)
    boxes, classes, scores = image.boxes.copy(), image.classes.copy(), image.scores.copy()
    boxes[1] = classes[1] = scores[1] = 0
    image = image._replace(boxes=boxes, classes=classes, scores=scores)
    source = layouts.write_vlp(tmp_path / "archive", [image])
    options = size_options(LAYOUTS["vlp-h5"], tmp_path, [image])
    assert import_archive(source, tmp_path / "store", *options).status == 0
    store = verify(tmp_path / "store")
    check_store(store, [image], LAYOUTS["vlp-h5"])
    assert store.boxes(0)[-1].tolist() == [0, 0, 0, 0]


def test_vinvl_in_numbered_folders(tmp_path: Path, import_archive: Call) -> None:
    for number in range(3):
        layouts.write_vinvl(tmp_path / "archive" / str(number), IMAGES[3 * number : 3 * number + 3])
    assert import_archive(tmp_path / "archive", tmp_path / "store").status == 0
    store = verify(tmp_path / "store")
    check_store(store, IMAGES, LAYOUTS["vinvl-tsv"])
    assert store.image_ids() == [str(int(image.name[-12:])) for image in IMAGES]
    assert [file["name"] for file in store.source["files"]] == [f"{number}/features.tsv" for number in range(3)]


def test_order_of_images(tmp_path: Path, import_archive: Call) -> None:
    """By line in TSV files, else by name; Unified VLP's by file first."""
    ids = [str(int(image.name[-12:])) for image in IMAGES]
    orders = {
        "vinvl-tsv": ids,
        "vlp-h5": ["2", "3", "1003", "7", "8", "9", "12", "2012", "20"],
        "m2-h5": sorted(ids),
        "vilbert-lmdb": sorted(ids, key=int),
        "mmf-npy": sorted(ids, key=int),
    }
    for name, order in orders.items():
        layout = LAYOUTS[name]
        source = layout.write(tmp_path / name, IMAGES)
        assert import_archive(source, tmp_path / "store", *size_options(layout, tmp_path), "--overwrite").status == 0
        assert RegionStore(tmp_path / "store").image_ids() == order


# Options


@pytest.mark.parametrize("name", LAYOUTS)
def test_boxes_by_option(name: str, tmp_path: Path, import_archive: Call) -> None:
    """`--boxes` has the last word, and gives the same store."""
    layout = LAYOUTS[name]
    options = [*size_options(layout, tmp_path), "--boxes"]
    if layout.format == "vinvl-tsv":
        layout = LAYOUTS["vinvl-tsv of Oscar"]
        options, kinds = [*size_options(layout, tmp_path), "--boxes"], ("normalised", "pixel")
        other = [image._replace(size=(1, 1)) for image in IMAGES]  # so that pixels are written
    else:
        kinds = ("pixel", "normalised")
        other = [
            image._replace(boxes=image.boxes / np.tile(np.array(image.size, dtype=np.float32), 2)) for image in IMAGES
        ]
    for kind, images in zip(kinds, (IMAGES, other), strict=True):
        source = layout.write(tmp_path / kind, images)
        outcome = import_archive(source, tmp_path / f"{kind}.store", *options, kind)
        assert outcome.status == 0, outcome.stderr
        store = verify(tmp_path / f"{kind}.store")
        assert store.source["boxes"] == kind
        check_store(store, IMAGES, layout)


@pytest.mark.parametrize("name", LAYOUTS)
def test_most_confident_regions(name: str, tmp_path: Path, import_archive: Call) -> None:
    layout = LAYOUTS[name]
    source = layout.write(tmp_path / "archive", IMAGES)
    options = size_options(layout, tmp_path)
    assert import_archive(source, tmp_path / "store", *options, "--max-regions", 3).status == 0
    store = verify(tmp_path / "store")
    for image in IMAGES:
        order = np.argsort(-image.scores, kind="stable") if layout.scores else np.arange(len(image.boxes))
        row = store.image_index(image.name)
        np.testing.assert_array_equal(store.features(row), image.features[order[:3]].astype(np.float16))
    assert store.manifest.truncated_images == sum(len(image.boxes) > 3 for image in IMAGES)


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if not layout.sizes])
def test_pixels_need_sizes(name: str, tmp_path: Path, import_archive: Call) -> None:
    layout = LAYOUTS[name]
    source = layout.write(tmp_path / "archive", IMAGES)
    outcome = import_archive(source, tmp_path / "store")
    if layout.format == "vinvl-tsv":
        assert outcome.status == 0
        assert verify(tmp_path / "store").size(0) is None
    else:
        assert outcome.status == 1
        assert "its boxes are in pixels and its size is not known; pass --sizes" in outcome.error


# Which format it is


@pytest.mark.parametrize("name", LAYOUTS)
def test_detection(name: str, tmp_path: Path) -> None:
    """One reader alone takes an archive for its own, and no other one opens it."""
    layout = LAYOUTS[name]
    source = layout.write(tmp_path / "archive", IMAGES)
    assert [kind for kind, reader in readers().items() if reader.detect(source)] == [layout.format]
    assert open_archive(source)[0].name == layout.format
    for kind, reader in readers().items():
        if kind != layout.format:
            with pytest.raises(DataError) as raised:
                reader(source)
            assert str(tmp_path) in str(raised.value)


def test_detection_of_single_files(tmp_path: Path) -> None:
    vinvl = layouts.write_vinvl(tmp_path / "vinvl", IMAGES)
    oscar = layouts.write_oscar(tmp_path / "oscar", IMAGES)
    vlp = layouts.write_vlp(tmp_path / "vlp", IMAGES)
    lmdb = layouts.write_vilbert(tmp_path / "lmdb", IMAGES)
    (tmp_path / "m2").mkdir()
    layouts.write_m2(tmp_path / "m2" / "coco_detections.hdf5", IMAGES)

    def found(path: Path) -> list[str]:
        return [name for name, reader in readers().items() if reader.detect(path)]

    assert found(vinvl / "features.tsv") == found(oscar / "test.feature.tsv") == ["vinvl-tsv"]
    assert found(tmp_path / "m2") == found(tmp_path / "m2" / "coco_detections.hdf5") == ["m2-h5"]
    assert found(lmdb / "data.mdb") == ["vilbert-lmdb"]
    # parts of an archive are none
    for part in (vinvl / "predictions.tsv", vinvl / "features.lineidx", oscar / "test.label.tsv"):
        assert found(part) == []
    for part in (*vlp.glob("feat_cls_1000/*.h5"), lmdb / "lock.mdb"):
        assert found(part) == []


@pytest.mark.parametrize(
    "text", ["1\t2\tA cat, asleep.\n", '1\t{"features": 3}\n', "image\tcaption\n", "\0\t1\tAAAA\n"]
)
def test_other_tsv_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "features.tsv").write_text(text)
    for path in (tmp_path, tmp_path / "features.tsv"):
        with pytest.raises(DataError, match=r"no known region archive\. Known are npz-dir: .*; mmf-npy: "):
            open_archive(path)


def test_two_hdf5_files_need_a_name(tmp_path: Path) -> None:
    for name in ("a.h5", "b.hdf5"):
        layouts.write_m2(tmp_path / name, IMAGES)
    with pytest.raises(DataError, match="no known region archive"):
        open_archive(tmp_path)
    assert open_archive(tmp_path / "b.hdf5")[0].name == "m2-h5"


@pytest.mark.parametrize(("name", "library"), [("vlp-h5", "h5py"), ("m2-h5", "h5py"), ("vilbert-lmdb", "lmdb")])
def test_a_library_that_is_not_installed(
    name: str, library: str, tmp_path: Path, import_archive: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LAYOUTS[name].write(tmp_path / "archive", IMAGES)
    monkeypatch.setitem(sys.modules, library, None)
    outcome = import_archive(source, tmp_path / "store")
    assert outcome.status == 1
    assert f'needs {library}: pip install "xgpt-fairseq[archives]"' in outcome.error


def test_the_other_formats_need_no_library(tmp_path: Path) -> None:
    """Readers are imported all together: h5py and lmdb only where they are used."""
    check = (
        "import sys; sys.modules['h5py'] = sys.modules['lmdb'] = None\n"
        "from xgpt_fairseq.archives import registry as r; print(*r.readers())"
    )
    done = subprocess.run(
        [python(), "-c", check],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(readers())
