"""import_regions.py as a program: real archives, bad input, interruptions."""

from __future__ import annotations

import base64
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.archives.layouts import encoded
from tests.folders import contents, images_in
from tests.preloaded import python
from xgpt_fairseq.cli import import_regions
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify

PROGRAM = Path(__file__).parents[2] / "preprocess" / "import_regions.py"
WIDTH = 16

# Calls the program in this process: (arguments) -> (status, stdout, stderr)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, arguments)])
        status = 0
        try:
            import_regions.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def image(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, WIDTH) and boxes (count, 4) in a photo of 640 x 480, float32."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), axis=1) * np.array([640, 480], dtype=np.float32)
    return rng.standard_normal((count, WIDTH), dtype=np.float32), corners.reshape(count, 4)


def tsv_line(name: object, features: np.ndarray, boxes: np.ndarray) -> str:
    return "\t".join([str(name), "640", "480", str(len(boxes)), encoded(boxes), encoded(features)]) + "\n"


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    """20 images of 1 to 7 regions."""
    path = tmp_path / "regions.tsv"
    path.write_text("".join(tsv_line(seed, *image(seed, 1 + seed % 7)) for seed in range(20)))
    return path


@pytest.fixture
def npz_dir(tmp_path: Path) -> Path:
    path = tmp_path / "npz"
    (path / "att").mkdir(parents=True)
    (path / "box").mkdir()
    for seed in range(3):
        features, boxes = image(seed, 2)
        np.savez(path / "att" / f"{seed}.npz", feat=features)
        np.save(path / "box" / f"{seed}.npy", boxes)
    return path


# Real archives


def test_coco_mini(coco_mini: Path, tmp_path: Path) -> None:
    """The whole program, as users start it."""
    sizes = coco_mini / "dataset_coco_mini.json"
    store_path = tmp_path / "store"
    command = [python(), PROGRAM, coco_mini, "--output", store_path, "--sizes", sizes]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert "found npz-dir: per-image files" in done.stdout
    assert "boxes are pixel: in the first 64 images the largest coordinate is 640" in done.stdout
    for line in ("images         517", "regions        16472", "per image      min 10, mean 31.9, max 36"):
        assert line in done.stdout
    assert re.search(r"^feature width +1280$", done.stdout, re.MULTILINE)

    store = verify(store_path)
    photos = {canonical_image_id(photo["cocoid"]): photo for photo in json.loads(sizes.read_text())["images"]}
    assert sorted(store.image_ids()) == sorted(photos)
    for image_id in random.Random(1).sample(sorted(photos), 40):
        row = store.image_index(image_id)
        size = photos[image_id]["width"], photos[image_id]["height"]
        assert store.size(row) == size
        features = np.load(coco_mini / "att" / f"{image_id}.npz")["feat"]
        np.testing.assert_array_equal(store.features(row), features)
        boxes = np.load(coco_mini / "box" / f"{image_id}.npy")
        np.testing.assert_allclose(store.boxes(row) * np.tile(size, 2), boxes, atol=1e-3)


def rewritten_in_original_columns(source: Path, target: Path) -> None:
    """The five photos as the original extractor writes them: no objects, and the width first."""
    with open(source) as lines, open(target, "w") as out:
        for line in lines:
            name, height, width, *_, count, boxes, features = line.rstrip("\n").split("\t")
            out.write("\t".join([name, width, height, count, boxes, features]) + "\n")


def test_bottom_up_attention_in_both_layouts(butd_tsv: Path, tmp_path: Path, call: Call) -> None:
    source = butd_tsv / "train2014_obj36.tsv"
    rewritten_in_original_columns(source, tmp_path / "original.tsv")
    assert call(butd_tsv, "--output", tmp_path / "lxmert")[0] == 0
    status, out, _ = call(tmp_path / "original.tsv", "--output", tmp_path / "original")
    assert status == 0
    assert "found butd-tsv: 1 TSV file(s) with the columns image_id, image_w, image_h" in out
    lxmert, original = verify(tmp_path / "lxmert"), verify(tmp_path / "original")
    assert original.scores(0) is original.labels(0) is None

    names = (butd_tsv / "objects_vocab.txt").read_text().splitlines()
    for line in source.read_text().splitlines():
        fields = line.split("\t")
        image_id, height, width = fields[0], int(fields[1]), int(fields[2])
        objects, scores, boxes, features = (
            np.frombuffer(base64.b64decode(fields[column]), dtype=dtype)
            for column, dtype in ((3, "<i8"), (4, "<f4"), (8, "<f4"), (9, "<f4"))
        )
        boxes, features = boxes.reshape(36, 4), features.reshape(36, 2048)
        row = original.image_index(image_id)
        assert original.size(row) == lxmert.size(lxmert.image_index(image_id)) == (width, height)
        np.testing.assert_array_equal(original.features(row), features.astype(np.float16))
        np.testing.assert_allclose(original.boxes(row) * np.tile([width, height], 2), boxes, atol=1e-3)
        # with confidences, the store is in their order
        order = np.argsort(-scores, kind="stable")
        row = lxmert.image_index(image_id)
        np.testing.assert_array_equal(lxmert.scores(row), scores[order])
        np.testing.assert_array_equal(lxmert.features(row), features[order].astype(np.float16))
        np.testing.assert_array_equal(lxmert.boxes(row), original.boxes(original.image_index(image_id))[order])
        assert lxmert.labels(row) == [names[number] for number in objects[order]]


# Options


def test_workers_change_nothing(tsv: Path, tmp_path: Path, call: Call) -> None:
    for workers in (0, 1, 3):
        assert call(tsv, "--output", tmp_path / f"store{workers}", "--workers", workers)[0] == 0
    assert contents(tmp_path / "store0") == contents(tmp_path / "store1") == contents(tmp_path / "store3")


def test_an_error_in_a_worker_is_the_same_error(tsv: Path, tmp_path: Path, call: Call) -> None:
    lines = tsv.read_text().splitlines(keepends=True)
    lines[11] = lines[11][:200] + "\n"
    lines[13] = "\n".join(["x", ""])
    tsv.write_text("".join(lines))
    errors = [call(tsv, "--output", tmp_path / "store", "--workers", workers) for workers in (0, 2)]
    assert errors[0][::2] == errors[1][::2]
    assert "regions.tsv, line 12: " in errors[0][2]


def test_limit(tsv: Path, tmp_path: Path, call: Call) -> None:
    assert call(tsv, "--output", tmp_path / "store", "--limit", 7)[0] == 0
    assert verify(tmp_path / "store").image_ids() == [str(seed) for seed in range(7)]


def test_max_regions(tsv: Path, tmp_path: Path, call: Call) -> None:
    status, out, _ = call(tsv, "--output", tmp_path / "store", "--max-regions", 4)
    assert status == 0
    assert re.search(r"^cut to 4 +8 images$", out, re.MULTILINE)
    assert RegionStore(tmp_path / "store").region_counts().tolist() == [min(1 + seed % 7, 4) for seed in range(20)]


@pytest.mark.parametrize("option", ["auto", "normalised"])
def test_normalised_boxes_need_no_sizes(npz_dir: Path, tmp_path: Path, call: Call, option: str) -> None:
    for file in (npz_dir / "box").iterdir():
        np.save(file, np.load(file) / np.array([640, 480, 640, 480]))
    status, out, _ = call(npz_dir, "--output", tmp_path / "store", "--boxes", option)
    assert status == 0
    assert ("boxes are normalised: in the first 3 images the largest coordinate is 0.9" in out) == (option == "auto")
    store = verify(tmp_path / "store")
    assert store.size(0) is None
    assert store.source["boxes"] == "normalised"
    np.testing.assert_allclose(store.boxes(0) * [640, 480, 640, 480], image(0, 2)[1], rtol=1e-5)


def test_an_existing_store_is_replaced_only_when_asked(tsv: Path, tmp_path: Path, call: Call) -> None:
    store = tmp_path / "store"
    assert call(tsv, "--output", store, "--limit", 3)[0] == 0
    status, _, err = call(tsv, "--output", store)
    assert (status, err) == (1, f"error: {store} exists; pass --overwrite to replace it\n")
    assert len(RegionStore(store)) == 3
    assert call(tsv, "--output", store, "--overwrite")[0] == 0
    assert len(RegionStore(store)) == 20


def test_help_has_an_example(call: Call) -> None:
    status, out, _ = call("--help")
    assert status == 0
    assert "xgpt-import-regions data/cocobu --output data/regions" in out
    assert "{auto,npz-dir,butd-tsv,vinvl-tsv,vlp-h5,m2-h5,vilbert-lmdb,mmf-npy}" in "".join(out.split())


# Sizes

SIZES: dict[str, list[dict[str, Any]]] = {
    "karpathy": [{"cocoid": seed, "imgid": 2 - seed, "width": 640 + seed, "height": 480} for seed in range(3)],
    "karpathy by file name": [
        {"filename": f"COCO_val2014_{seed:012d}.jpg", "imgid": 2 - seed, "width": 640 + seed, "height": 480}
        for seed in range(3)
    ],
    "karpathy by imgid": [
        {"filename": f"{seed}x.jpg", "imgid": seed, "width": 640 + seed, "height": 480} for seed in range(3)
    ],
    "coco": [{"id": seed, "file_name": f"{seed}x.jpg", "width": 640 + seed, "height": 480} for seed in range(3)],
}


@pytest.mark.parametrize("kind", SIZES)
def test_sizes_of_both_kinds_of_json(npz_dir: Path, tmp_path: Path, call: Call, kind: str) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps({"images": SIZES[kind]}))
    assert call(npz_dir, "--output", tmp_path / "store", "--sizes", tmp_path / "sizes.json")[0] == 0
    store = verify(tmp_path / "store")
    assert [store.size(store.image_index(seed)) for seed in range(3)] == [(640 + seed, 480) for seed in range(3)]


def test_sizes_from_two_files(npz_dir: Path, tmp_path: Path, call: Call) -> None:
    options: list[object] = []
    for number, part in enumerate((SIZES["coco"][:1], SIZES["coco"][1:])):
        (tmp_path / f"{number}.json").write_text(json.dumps({"images": part}))
        options += ["--sizes", tmp_path / f"{number}.json"]
    assert call(npz_dir, "--output", tmp_path / "store", *options)[0] == 0


# Bad input: one line, which names the file, the record, the value and the rule; status 1; no store


def bad_line(**change: Any) -> str:
    features, boxes = (array.astype(np.float32) for array in image(5, 3))
    for place, value in change.items():
        target, region, column = place.split("_")
        {"features": features, "boxes": boxes}[target][int(region), int(column)] = value
    return tsv_line("COCO_val2014_000000000077", features, boxes)


def wide_line() -> str:
    return tsv_line(77, np.zeros((3, WIDTH * 2), dtype=np.float32), image(5, 3)[1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (bad_line(features_1_4=np.nan), "image 77, region 1: feature 4 is nan; features must be finite"),
        (bad_line(features_2_0=np.inf), "image 77, region 2: feature 0 is inf; features must be finite"),
        (
            bad_line(features_0_1=1e5),
            "image 77, region 0: feature 1 is 100000; the maximum of float16, the store's type, is 65504",
        ),
        (bad_line(boxes_1_2=700), r"image 77, region 1: box \[.*700.*\] lies outside the image of 640 x 480 .* by 60 "),
        (bad_line(boxes_2_0=639.5), r"image 77, region 2: box \[639\.5, .*\] has x1 > x2 or y1 > y2"),
        (wide_line(), r"column features has 384 bytes, 192 expected for float32 \(3, 16\)"),
        (tsv_line(3, *image(5, 3)), "image 3 occurs more than once; an image id must be unique"),
        (tsv_line(77, *image(5, 0)), "image 77 has no regions; at least one is needed"),
        (bad_line()[:250] + "\n", r"column features .*is the line truncated\?"),
    ],
)
def test_bad_records(tsv: Path, tmp_path: Path, call: Call, line: str, message: str) -> None:
    lines = tsv.read_text().splitlines(keepends=True)
    lines[8] = line
    tsv.write_text("".join(lines))
    status, _, err = call(tsv, "--output", tmp_path / "store")
    assert status == 1
    assert re.fullmatch(rf"error: {tsv}, line 9: {message}.*\n", err), err
    assert not (tmp_path / "store").exists()


def test_pixel_boxes_without_a_size(npz_dir: Path, tmp_path: Path, call: Call) -> None:
    status, _, err = call(npz_dir, "--output", tmp_path / "store")
    assert status == 1
    assert err == (
        f"error: {npz_dir}/att/0.npz: image 0: its boxes are in pixels and its size is not known; pass --sizes "
        "(--skip-broken N leaves out up to N broken records)\n"
    )
    files = [tmp_path / f"{name}.json" for name in ("train", "val")]
    for file, name in zip(files, ("karpathy", "coco"), strict=True):
        file.write_text(json.dumps({"images": SIZES[name][1:]}))
    options = [word for file in files for word in ("--sizes", file)]
    _, _, err = call(npz_dir, "--output", tmp_path / "store", *options)
    assert f"image 0: its boxes are in pixels, and no file of --sizes has its size: {files[0]} and {files[1]} (" in err


def test_other_width_in_a_file(npz_dir: Path, tmp_path: Path, call: Call) -> None:
    np.savez(npz_dir / "att" / "1.npz", feat=np.ones((2, 7), dtype=np.float32))
    (tmp_path / "sizes.json").write_text(json.dumps({"images": SIZES["coco"]}))
    status, _, err = call(npz_dir, "--output", tmp_path / "store", "--sizes", tmp_path / "sizes.json")
    assert status == 1
    assert f"{npz_dir}/att/1.npz: image 1: features are 7 wide; the store's, by its first image, 16" in err


def test_no_archive(tmp_path: Path, call: Call) -> None:
    status, _, err = call(tmp_path / "nowhere", "--output", tmp_path / "store")
    assert status == 1
    assert err.startswith(f"error: {tmp_path / 'nowhere'}: no known region archive")
    assert err.count("\n") == 1


# Interruptions


def test_a_killed_import_goes_on_and_ends_the_same(tmp_path: Path, call: Call) -> None:
    """SIGKILL of the real program, several times, with worker processes; then once to the end."""
    source = tmp_path / "regions.tsv"
    source.write_text("".join(tsv_line(seed, *image(seed, 1 + seed % 7)) for seed in range(600)))
    assert call(source, "--output", tmp_path / "expected")[0] == 0

    store, journal = tmp_path / "store", tmp_path / ".store.partial" / "journal.json"
    # The program as it is, but slower, and with a journal at every fifth image.
    slowed = (
        "import sys, time; from xgpt_fairseq.cli import import_regions\n"
        "import xgpt_fairseq.regions.writer as w; add = w.RegionWriter.add\n"
        "def slow(self, *a, **k): self.journal_images = 5; time.sleep(0.002); add(self, *a, **k)\n"
        "w.RegionWriter.add = slow; import_regions.main()"
    )
    command = [python(), "-c", slowed, str(source), "--output", str(store), "--workers", "2"]
    reached = [0]
    for _ in range(2):
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while program.poll() is None and images_in(journal) < reached[-1] + random.randint(20, 200):
            time.sleep(0.005)
        program.send_signal(signal.SIGKILL)
        _, err = program.communicate(timeout=20)  # ends only when the workers have ended, too
        assert program.returncode == -signal.SIGKILL, err
        assert not store.exists()
        reached.append(images_in(journal))
    assert reached == sorted(set(reached))

    status, out, _ = call(source, "--output", store)
    assert status == 0
    assert f"resuming an interrupted import after {reached[-1]} images" in out
    assert f"({reached[-1]} of them before it was interrupted)" in out
    assert contents(store) == contents(tmp_path / "expected")
    assert not journal.parent.exists()


def break_last_image(tsv: Path) -> None:
    """Make the last feature of the archive NaN; no length changes."""
    lines = tsv.read_text().splitlines(keepends=True)
    features, boxes = image(19, 1 + 19 % 7)
    features[-1, -1] = np.nan
    tsv.write_text("".join([*lines[:-1], tsv_line(19, features, boxes)]))


def test_an_import_goes_on_after_its_input_was_put_right(
    tsv: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(tsv, "--output", tmp_path / "expected")[0] == 0
    good = tsv.read_text()
    break_last_image(tsv)
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    status, _, err = call(tsv, "--output", tmp_path / "store")
    assert status == 1
    assert "line 20: image 19, region 5: feature 15 is nan" in err
    assert not (tmp_path / "store").exists()
    tsv.write_text(good)
    status, out, _ = call(tsv, "--output", tmp_path / "store")
    assert status == 0
    assert "resuming an interrupted import after 19 images" in out
    assert contents(tmp_path / "store") == contents(tmp_path / "expected")


def test_an_import_that_had_nothing_yet_begins_anew_with_other_options(tsv: Path, tmp_path: Path, call: Call) -> None:
    """As after "pass --sizes": the advice must work. (Where images would be lost, `RegionWriter` refuses.)"""
    good = tsv.read_text()
    break_last_image(tsv)
    assert call(tsv, "--output", tmp_path / "store")[0] == 1
    tsv.write_text(good)
    assert call(tsv, "--output", tmp_path / "store", "--max-regions", 4)[0] == 0
