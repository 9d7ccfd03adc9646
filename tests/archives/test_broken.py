"""Archives that are broken: one line that names the file, the record, the value and the rule, and no store."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest

from tests.archives import layouts
from tests.archives.layouts import Image, made_up
from xgpt_fairseq.archives.handle_cache import close_cached, open_cached
from xgpt_fairseq.archives.registry import READERS
from xgpt_fairseq.cli import import_regions

IMAGES = [made_up(number) for number in range(2, 8)]
THIRD = IMAGES[2]  # COCO_val2014_000000000004, of 5 regions

Fails = Callable[..., str]


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    close_cached()


@pytest.fixture
def fails(call_program: Callable[..., Any], tmp_path: Path) -> Fails:
    """fails(source, *options): the error of the import, the same with and without worker processes."""
    sizes = layouts.write_sizes(tmp_path / "sizes.json", IMAGES)

    def call(source: Path, *options: object) -> str:
        errors = set()
        for workers in (0, 2):
            store = tmp_path / f"store{workers}"
            outcome = call_program(
                import_regions.main, source, "--output", store, "--sizes", sizes, "--workers", workers, *options
            )
            assert outcome.status == 1
            assert not store.exists()
            errors.add(outcome.error.replace(str(tmp_path), ""))
        [error] = errors
        return error

    return call


def with_third(line_of: Callable[[Image], str], change: Callable[[str], str]) -> Iterator[str]:
    for image in IMAGES:
        yield change(line_of(image)) if image is THIRD else line_of(image)


def matches(error: str, pattern: str) -> None:
    assert re.search(pattern, error), error


# vinvl-tsv


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:200] + "\n", r"features has \d+ bytes, 440 expected for float32 \(5, 22\): is the"),
        (lambda line: line[:201] + "\n", r"column features is not base64 .*: is the line cut\?"),
        (lambda line: line[:20] + "\n", r"1 columns, 3 expected: is the line cut\?"),
        (lambda line: line.replace("\t5\t", "\t6\t"), r"has 440 bytes, 528 expected for float32 \(6, 22\)"),
        (lambda line: line.replace("\t5\t", "\tfive\t"), r"column num_boxes is b'five', a whole number expected"),
        (lambda _: layouts.vinvl_line(made_up(4, width=17)), r"has 460 bytes, 440 expected for float32 \(5, 22\)"),
    ],
)
def test_lines_of_vinvl(change: Callable[[str], str], message: str, tmp_path: Path, fails: Fails) -> None:
    layouts.write_lines(tmp_path / "features.tsv", with_third(layouts.vinvl_line, change))
    matches(fails(tmp_path / "features.tsv"), rf"^/features\.tsv, line 3: .*{message}")


def test_features_that_end_in_something_else(tmp_path: Path, fails: Fails) -> None:
    """2048 wide, say, without box values."""
    plain = (f"{image.name}\t{len(image.boxes)}\t{layouts.encoded(image.features)}\n" for image in IMAGES)
    layouts.write_lines(tmp_path / "features.tsv", plain)
    error = fails(tmp_path / "features.tsv")
    matches(error, r"line 1: region 0: the last 6 values of its feature are \[.*\]; x1 y1 x2 y2 and width and height")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:150] + "\n", r"column 2 is not JSON \(Unterminated string .*\): is the line cut\?"),
        (lambda line: line.replace('"num_boxes"', '"number"'), r"the JSON has no num_boxes"),
        (lambda line: line.replace('"num_boxes": 5', '"num_boxes": 5.5'), r"column num_boxes is 5\.5, a whole number"),
        (lambda line: line.replace('"num_boxes": 5', '"num_boxes": 4'), r"column features has 440 bytes, 352 expected"),
        (lambda line: line.split("\t")[0] + "\t[]\n", r"the JSON has no num_boxes and no features"),
        (lambda line: line.split('"features"')[0] + '"features": 7}\n', r"column features is not base64"),
    ],
)
def test_lines_of_oscar(change: Callable[[str], str], message: str, tmp_path: Path, fails: Fails) -> None:
    layouts.write_lines(tmp_path / "test.feature.tsv", with_third(layouts.vinvl_json_line, change))
    matches(fails(tmp_path), rf"^/test\.feature\.tsv, line 3: {message}")


def changed(line: str, **values: Any) -> str:
    name, value = line.split("\t")
    return f"{name}\t{json.dumps(json.loads(value) | values)}\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: changed(line, objects=json.loads(line.split("\t")[1])["objects"][1:]), r"4 objects; there are f"),
        (lambda line: changed(line, objects=json.loads(line.split("\t")[1])["objects"][::-1]), r"another order\?"),
        (lambda line: changed(line, image_w=320), r"object \d is at \[.*\] in an image of 320 x 480 pixels; the"),
        (lambda line: line.replace('"conf"', '"confidence"'), r"an object without class, conf and rect .*\('conf'\)"),
        (lambda line: changed(line, objects=3), r"an image id and JSON with a list of objects expected"),
        (lambda line: line[:100] + "\n", r"column 2 is not JSON"),
        (lambda line: changed(line, image_h="tall"), r"column image_h is 'tall', a whole number expected"),
    ],
)
def test_predictions_of_vinvl(change: Callable[[str], str], message: str, tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    layouts.write_lines(tmp_path / "predictions.tsv", with_third(layouts.prediction_line, change))
    error = fails(tmp_path)
    matches(error, rf"^/predictions\.tsv, line 3: .*{message}")
    matches(error, r"\(Without predictions\.tsv, features\.tsv is imported without sizes, labels and scores\.\)$")


def test_predictions_of_other_images(tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    layouts.write_lines(tmp_path / "predictions.tsv", map(layouts.prediction_line, [*IMAGES[3:], *IMAGES[:3]]))
    matches(
        fails(tmp_path), r"line 1: /predictions\.tsv has no image COCO_val2014_0+2, or|line 4: /predictions\.tsv has"
    )


def test_predictions_may_have_more_images(call_program: Callable[..., Any], tmp_path: Path) -> None:
    layouts.write_vinvl(tmp_path / "a", IMAGES)
    layouts.write_lines(tmp_path / "a" / "predictions.tsv", map(layouts.prediction_line, [made_up(1), *IMAGES]))
    assert call_program(import_regions.main, tmp_path / "a", "--output", tmp_path / "store").status == 0


def test_a_download_that_was_cut_between_lines(tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    file = tmp_path / "features.tsv"
    data = file.read_bytes()
    file.write_bytes(data[: data[:-1].rindex(b"\n") + 1])
    error = fails(tmp_path)
    matches(
        error, r"^/features\.tsv has \d+ bytes; by features\.lineidx its last line begins at byte \d+, which does not"
    )
    file.write_bytes(data)
    (tmp_path / "features.lineidx").write_text("0\n7\n")
    matches(fails(tmp_path), r"its last line begins at byte 7, which does not fit")
    (tmp_path / "features.lineidx").write_text("")
    matches(fails(tmp_path), r"features\.lineidx its last line begins at byte -1, which does not fit")


def test_a_first_line_of_vinvl(tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "features.tsv"
    for text, message in (
        ("1\t2\t3\t4\n", r"4 columns; expected are image_id, num_boxes, features, or image_id and JSON with num_boxes"),
        ("1\t5\tAAAA\n", r"column features has 3 bytes, not a whole number of float32 for each of 5 boxes"),
        (
            "1\t1\t" + layouts.encoded(np.ones(6, dtype=np.float32)) + "\n",
            r"features are 6 wide; more than the 6 values",
        ),
    ):
        file.write_text(text)
        matches(fails(file, "--format", "vinvl-tsv"), rf"^/features\.tsv, line 1: {message}")


def test_files_of_different_columns(tmp_path: Path, fails: Fails) -> None:
    layouts.write_vinvl(tmp_path, IMAGES)
    layouts.write_oscar(tmp_path, IMAGES)
    matches(fails(tmp_path), r"/test\.feature\.tsv: other columns than in /features\.tsv: import them one by one")


# vlp-h5


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
        ("cls_prob", None, r"image 4 comes without scores, the images before it with; all of a store or none"),
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
        ({"image_id": 77}, r"its image_id is '77'; the same as its key expected"),
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
    matches(fails(path), r"^/a\.lmdb: 6 items, 5 ids in the list 'keys'; as many expected")
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
    matches(fails(path), rf"^/a\.lmdb has {size // 2} bytes, {size} expected: it is cut")
    os.truncate(data, 50)
    matches(fails(path), r"^/a\.lmdb is not readable as LMDB: ")


# mmf-npy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": THIRD.boxes[:-1]}, r"boxes are float32 of shape \(4, 4\); 5 regions have features"),
        ({"bbox": np.ones((5, 6))}, r"boxes are float64 of shape \(5, 6\); 5 regions have features, so numbers of"),
        ({"bbox": [[0, 0, 1, 1]]}, r"bbox is list, not an array; found: bbox, num_boxes, objects"),
        ({"objects": THIRD.classes[:2]}, r"objects are int64 of shape \(2,\); 5 class numbers expected, one a region"),
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
    matches(fails(folder), rf"^/mmf/val2014/{THIRD.name}_info\.npy is missing: an image has a file of features and")
    info.write_bytes(kept[1])
    features.unlink()
    matches(
        fails(folder), rf"^/mmf/val2014/{THIRD.name}\.npy is missing: an image has a file of features and a file of"
    )


def test_class_numbers_of_pythia(call_program: Callable[..., Any], tmp_path: Path) -> None:
    """Its extractor wrote one too few: then there are no labels. Confidences that are one a region are scores."""
    folder = layouts.write_mmf(tmp_path / "mmf", IMAGES)
    for image in IMAGES:
        info = layouts.mmf_info(image) | {"objects": image.classes[1:], "cls_prob": image.scores}
        np.save(folder / "val2014" / f"{image.name}_info.npy", info)
    assert call_program(import_regions.main, folder, "--output", tmp_path / "store").status == 0
    store = import_regions.RegionStore(tmp_path / "store")
    row = store.image_index(THIRD.name)
    assert store.labels(row) is None
    np.testing.assert_array_equal(store.scores(row), np.sort(THIRD.scores)[::-1])


# What every reader does with a path that is nothing to it


@pytest.mark.parametrize("name", READERS)
def test_a_format_by_name_on_something_else(name: str, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "nowhere"):
        assert fails(path, "--format", name).startswith(f"/{path.name}")


# Handles


def test_what_stays_open_is_closed_before_a_fork(tmp_path: Path) -> None:
    """LMDB refuses to open in a child what its parent has open, and HDF5 would share the parent's."""
    import multiprocessing

    from xgpt_fairseq.archives.vilbert_lmdb import open_lmdb

    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    database = open_cached(path, open_lmdb)
    assert open_cached(path, open_lmdb) is database
    process = multiprocessing.get_context("fork").Process(target=_entries, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    with pytest.raises(lmdb.Error):
        database.stat()
    assert open_cached(path, open_lmdb).stat()["entries"] == len(IMAGES) + 1


def _entries(path: Path) -> None:
    from xgpt_fairseq.archives.vilbert_lmdb import open_lmdb

    assert open_cached(path, open_lmdb).stat()["entries"] == len(IMAGES) + 1


def test_few_files_stay_open(tmp_path: Path) -> None:
    class Handle:
        open = 0

        def __init__(self, path: Path) -> None:
            Handle.open += 1

        def close(self) -> None:
            Handle.open -= 1

    for number in range(20):
        open_cached(tmp_path / str(number), Handle)
        first = open_cached(tmp_path / "first", Handle)
        assert open_cached(tmp_path / "first", Handle) is first
    assert Handle.open == 4
    close_cached()
    assert Handle.open == 0


def test_no_lock_file_is_left(call_program: Callable[..., Any], tmp_path: Path) -> None:
    path = layouts.write_vilbert(tmp_path / "a.lmdb", IMAGES)
    (path / "lock.mdb").unlink()
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert call_program(import_regions.main, path, "--output", tmp_path / "store", "--workers", 2).status == 0
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
