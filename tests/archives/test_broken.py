"""Archives that are broken: one line that names the file, the record, the value and the rule, and no store."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest

from tests.archives import layouts
from tests.archives.breaking import IMAGES, THIRD, Fails, matches
from tests.archives.layouts import Image, made_up
from xgpt_fairseq.archives.registry import FORMATS
from xgpt_fairseq.cli import import_regions
from xgpt_fairseq.regions.store import RegionStore

# vinvl-tsv


def test_boxes_of_vlp(tmp_path: Path, fails: Fails) -> None:
    folder = layouts.write_vlp(tmp_path / "vlp", IMAGES)
    [boxes] = folder.glob("*_bbox.h5")

    def put(array: np.ndarray | None) -> None:
        with h5py.File(boxes, "a") as file:
            if THIRD.name in file:
                del file[THIRD.name]
            if array is not None:
                file.create_dataset(THIRD.name, data=array)

    put(None)
    matches(fails(folder), rf"^/vlp/coco_.*_bbox\.h5: no array '{THIRD.name}' in it")
    put(THIRD.boxes)
    matches(
        fails(folder), rf"bbox\.h5, array {THIRD.name}: shape \(5, 4\); \(5, 6\) expected: x1 y1 x2 y2, class, conf"
    )
    put(np.ones((4, 6), dtype=np.float32))
    matches(
        fails(folder), rf"bbox\.h5, array {THIRD.name}: boxes are float32 of shape \(4, 4\); 5 regions have features"
    )
    rows = np.column_stack([THIRD.boxes, THIRD.classes, THIRD.scores])
    rows[2, 5] = np.nan
    put(rows)
    matches(fails(folder), rf"_feat004\.h5, array {THIRD.name}: image 4, region 2: score nan is not finite")


def test_features_of_vlp(tmp_path: Path, fails: Fails) -> None:
    folder = layouts.write_vlp(tmp_path / "vlp", IMAGES)
    [features] = folder.glob("feat_cls_1000/*_feat004.h5")
    with h5py.File(features, "w") as file:
        file.create_dataset(THIRD.name, data=np.ones((5, 7), dtype=np.float32))
    matches(
        fails(folder), rf"_feat004\.h5, array {THIRD.name}: image 4: features are 7 wide; the store's, by its first"
    )
    with h5py.File(features, "w") as file:
        file.create_dataset(THIRD.name, data=np.ones((5, 16), dtype=np.int32))
    matches(fails(folder), r"features are int32 of shape \(5, 16\); floats of \(regions, width\) expected")
    data = features.read_bytes()
    features.write_bytes(data[:-100])
    matches(fails(folder), r"_feat004\.h5 is not readable as HDF5: .*truncated file")
    features.write_bytes(b"something else")
    matches(fails(folder), r"_feat004\.h5 is not readable as HDF5: .*file signature not found")


def test_boxes_of_vlp_that_are_not_there(tmp_path: Path, fails: Fails) -> None:
    folder = layouts.write_vlp(tmp_path / "vlp", IMAGES, merged=False)
    [part] = folder.glob("raw_bbox/*_bbox004.h5")
    part.rename(tmp_path / part.name)
    error = fails(folder)
    matches(
        error, r"^/vlp: no HDF5 file of boxes for coco_.*_feat004\.h5: neither one for all images nor \*_bbox004\.h5"
    )
    layouts.write_m2(folder / "one.h5", IMAGES)
    layouts.write_m2(folder / "two.h5", IMAGES)
    matches(fails(folder), r"^/vlp: more than one file that could hold the boxes: one\.h5, two\.h5; only one HDF5 file")


# m2-h5


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("boxes", None, r"/m2\.hdf5: no array '4_boxes' in it"),
        ("boxes", np.ones((4, 4)), r"/m2\.hdf5, image 4: boxes are float64 of shape \(4, 4\); 5 regions have features"),
        ("boxes", np.ones((5, 6)), r"/m2\.hdf5, image 4: boxes are float64 of shape \(5, 6\); .* numbers of \(5, 4\)"),
        ("boxes", np.full((5, 4), np.inf), r"/m2\.hdf5, image 4: image 4, region 0: box \[inf.*\] is not finite"),
        ("features", np.ones(5), r"/m2\.hdf5, image 4: features are float64 of shape \(5,\); floats of \(regions"),
        ("features", np.ones((5, 15)), r"/m2\.hdf5, image 4: image 4: features are 15 wide; the store's"),
        ("cls_prob", np.ones((4, 9)), r"image 4: cls_prob has the shape \(4, 9\); \(5, classes\) or \(5,\) expected"),
        ("cls_prob", None, r"image 4 comes without scores, the images before it with; all images must agree"),
        ("size", np.ones(3), r"image 4: size is float64 of shape \(3,\); height and width expected"),
    ],
)
def test_arrays_of_m2(name: str, array: np.ndarray | None, message: str, tmp_path: Path, fails: Fails) -> None:
    path = layouts.write_m2(tmp_path / "m2.hdf5", IMAGES)
    with h5py.File(path, "a") as file:
        if name != "size":
            del file[f"4_{name}"]
        if array is not None:
            file.create_dataset(f"4_{name}", data=array)
    matches(fails(path), message)


def test_an_hdf5_file_of_another_layout(tmp_path: Path, fails: Fails) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image_id", data=np.arange(3))
        file.create_dataset("features", data=np.ones((3, 36, 8)))
    matches(fails(tmp_path / "a.h5"), r"^/a\.h5: no array is named \{id\}_features; there are features, image_id")
    data = layouts.write_m2(tmp_path / "m2.h5", IMAGES).read_bytes()
    (tmp_path / "m2.h5").write_bytes(data[: len(data) // 2])
    matches(fails(tmp_path / "m2.h5"), r"^/m2\.h5 is not readable as HDF5: .*truncated file")


# vilbert-lmdb


def put(path: Path, key: bytes, value: bytes | None) -> None:
    with lmdb.open(str(path), map_size=1 << 30) as database, database.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)


def test_pickled_code_in_lmdb_is_not_run(tmp_path: Path, fails: Fails) -> None:
    from tests.archives.test_safe_pickle import malicious

    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    created = tmp_path / "created"
    for evil in (malicious(created), layouts.vilbert_item(THIRD) | {"features": malicious(created)}):
        put(path, THIRD.name.encode(), pickle.dumps(evil))
        matches(
            fails(path), rf"^/a\.lmdb, item {THIRD.name}: its pickle asks for builtins\.exec, which is refused and was"
        )
        assert not created.exists()
    put(path, b"keys", pickle.dumps([malicious(created)]))
    matches(fails(path), r"^/a\.lmdb, item keys: its pickle asks for builtins\.exec, which is refused and was not run")
    assert not created.exists()


def test_pickled_code_in_info_files_is_not_run(tmp_path: Path, fails: Fails) -> None:
    from tests.archives.test_safe_pickle import malicious

    folder = layouts.write_mmf(tmp_path / "mmf", IMAGES)
    created, info = tmp_path / "created", folder / "val2014" / f"{THIRD.name}_info.npy"
    for evil in (layouts.mmf_info(THIRD) | {"x": malicious(created)}, np.array(malicious(created), dtype=object)):
        np.save(info, evil, allow_pickle=True)
        matches(
            fails(folder), rf"{THIRD.name}_info\.npy: its pickle asks for builtins\.exec, which is refused and was not"
        )
        assert not created.exists()
    np.save(info.with_name(f"{THIRD.name}.npy"), np.array(malicious(created), dtype=object), allow_pickle=True)
    matches(fails(folder), rf"{THIRD.name}\.npy is not readable: .*allow_pickle=False")
    assert not created.exists()


@pytest.mark.parametrize("item", [layouts.vilbert_item, layouts.vilbert_text_item, layouts.mmf_item])
@pytest.mark.parametrize("key", ["boxes", "features"])
def test_items_without_an_entry(
    item: Callable[[Image], dict[str, Any]], key: str, tmp_path: Path, fails: Fails
) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES, item)
    value = item(THIRD)
    del value["bbox" if key == "boxes" and "bbox" in value else key]
    put(path, THIRD.name.encode(), pickle.dumps(value))
    matches(fails(path), rf"^/a\.lmdb, item {THIRD.name}: (no {key}; found: |{key} is missing; found: )\w+, ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.ones((4, 4))}, r"boxes are float64 of shape \(4, 4\); 5 regions have features, so numbers of"),
        ({"features": np.ones((5, 16), dtype=object)}, r"features are object of shape \(5, 16\); floats of"),
        ({"features": np.ones((5, 4))}, r"image 4: features are 4 wide; the store's, by its first image, 16"),
        ({"image_id": 77}, r"its image_id is '77'; its key expected"),
        ({"image_w": None}, r"image_w None, image_h 480; two whole numbers expected"),
        (
            {"features": "####", "num_boxes": 5, "boxes": layouts.encoded(THIRD.boxes)},
            r"column features is not base64",
        ),
        ({"features": "", "num_boxes": 6, "boxes": layouts.encoded(THIRD.boxes)}, r"boxes has 80 bytes, 96 expected"),
        ({"features": "AAAA", "num_boxes": 5, "boxes": layouts.encoded(THIRD.boxes)}, r"3 bytes, not a whole number"),
        ({"features": "AAAA", "num_boxes": "many"}, r"column num_boxes is 'many', a whole number expected"),
        ({"features": "AAAA", "num_boxes": 5, "boxes": THIRD.boxes}, r"column boxes "),
    ],
)
def test_items_of_vilbert(change: dict[str, Any], message: str, tmp_path: Path, fails: Fails) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    put(path, THIRD.name.encode(), pickle.dumps(layouts.vilbert_item(THIRD) | change))
    matches(fails(path), rf"^/a\.lmdb, item {THIRD.name}: .*{message}")


def test_items_that_are_no_dictionary(tmp_path: Path, fails: Fails) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    put(path, THIRD.name.encode(), pickle.dumps([1]))
    matches(fails(path), rf"item {THIRD.name}: it holds list; a dictionary expected")
    put(path, THIRD.name.encode(), b"\x80\x04]")
    matches(fails(path), rf"item {THIRD.name}: its pickle is not readable \(EOFError")


def test_the_list_of_ids(tmp_path: Path, fails: Fails) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    names = [image.name.encode() for image in IMAGES]
    put(path, b"keys", pickle.dumps(names[1:]))
    matches(fails(path), r"^/a\.lmdb: 6 items, 5 ids in the list 'keys'; equal numbers expected")
    put(path, b"keys", pickle.dumps([*names[1:], b"other"]))
    matches(fails(path), r"^/a\.lmdb, item other: not there, but in the database's list of ids \(keys\)")
    put(path, b"keys", pickle.dumps({"a": 1}))
    matches(fails(path), r"^/a\.lmdb, item keys: a list of ids expected")
    put(path, b"keys", None)
    matches(fails(path), r"^/a\.lmdb: no item 'keys', the list of all ids: was writing it interrupted\?")


def test_a_database_that_is_cut(tmp_path: Path, fails: Fails) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", [made_up(number, count=100) for number in range(20)])
    data = path / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, size // 2)
    matches(fails(path), rf"^/a\.lmdb has {size // 2} bytes, {size} expected: it is truncated")
    os.truncate(data, 50)
    matches(fails(path), r"^/a\.lmdb is not readable as LMDB: ")


# mmf-npy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": THIRD.boxes[:-1]}, r"boxes are float32 of shape \(4, 4\); 5 regions have features"),
        ({"bbox": np.ones((5, 6))}, r"boxes are float64 of shape \(5, 6\); 5 regions have features, so numbers of"),
        ({"bbox": [[0, 0, 1, 1]]}, r"bbox is list, not an array; found: bbox, num_boxes, objects"),
        (
            {"objects": THIRD.classes[:2]},
            r"objects are int64 of shape \(2,\); 5 class numbers expected, one per region",
        ),
        ({"cls_prob": np.ones(4)}, r"cls_prob has the shape \(4,\); 5 regions have features"),
        ({"image_height": "tall"}, r"image_width 640, image_height 'tall'; two whole numbers expected"),
    ],
)
def test_infos_of_mmf(change: dict[str, Any], message: str, tmp_path: Path, fails: Fails) -> None:
    folder = layouts.write_mmf(tmp_path / "mmf", IMAGES)
    np.save(folder / "val2014" / f"{THIRD.name}_info.npy", layouts.mmf_info(THIRD) | change)
    matches(fails(folder), rf"^/mmf/val2014/{THIRD.name}_info\.npy: {message}")


def test_files_of_mmf(tmp_path: Path, fails: Fails) -> None:
    folder = layouts.write_mmf(tmp_path / "mmf", IMAGES) / "val2014"
    features, info = folder / f"{THIRD.name}.npy", folder / f"{THIRD.name}_info.npy"
    kept = features.read_bytes(), info.read_bytes()

    np.save(features, np.ones((5, 4, 4)))
    matches(fails(folder), rf"^/mmf/val2014/{THIRD.name}\.npy: features are float64 of shape \(5, 4, 4\); floats of")
    features.write_bytes(kept[0][:200])
    matches(fails(folder), rf"^/mmf/val2014/{THIRD.name}\.npy is not readable: ")
    features.write_bytes(kept[0])
    np.save(info, np.ones(3))
    matches(
        fails(folder), rf"^/mmf/val2014/{THIRD.name}_info\.npy: float64 of shape \(3,\); a single dictionary expected"
    )
    np.save(info, np.array("text", dtype=object))
    matches(fails(folder), rf"{THIRD.name}_info\.npy: it holds str; a dictionary expected")
    info.write_bytes(b"hello")
    matches(fails(folder), rf"{THIRD.name}_info\.npy is not readable: ")
    info.write_bytes(kept[1][:200])
    matches(fails(folder), rf"{THIRD.name}_info\.npy: its pickle is not readable")
    info.unlink()
    matches(fails(folder), rf"^/mmf/val2014/{THIRD.name}_info\.npy is missing: each image needs a file of features and")
    info.write_bytes(kept[1])
    features.unlink()
    matches(
        fails(folder), rf"^/mmf/val2014/{THIRD.name}\.npy is missing: each image needs a file of features and a file of"
    )


def test_class_numbers_of_pythia(call_program: Callable[..., Any], tmp_path: Path) -> None:
    """Its extractor wrote one too few: then there are no labels. Confidences that are one a region are scores."""
    folder = layouts.write_mmf(tmp_path / "mmf", IMAGES)
    for image in IMAGES:
        info = layouts.mmf_info(image) | {"objects": image.classes[1:], "cls_prob": image.scores}
        np.save(folder / "val2014" / f"{image.name}_info.npy", info)
    assert call_program(import_regions.main, folder, "--output", tmp_path / "store").status == 0
    store = RegionStore(tmp_path / "store")
    row = store.image_index(THIRD.name)
    assert store.labels(row) is None
    np.testing.assert_array_equal(store.scores(row), np.sort(THIRD.scores)[::-1])


# What every reader does with a path that is nothing to it


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_by_name_on_something_else(name: str, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "nowhere"):
        assert fails(path, "--format", name).startswith(f"/{path.name}")
