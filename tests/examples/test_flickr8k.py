"""The data of the tables in miniature: prepared from photos and captions of the layout that the script expects."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.programs import ROOT, SMALL, run
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.directory import DataDirectory

SCRIPT = ROOT / "examples" / "ablations" / "flickr8k.sh"


def photos(folder: Path, splits: dict[str, int]) -> set[str]:
    """A folder with images/ and dataset_*.json; the ids of its val photos."""
    rng = np.random.default_rng(1)
    (folder / "images").mkdir(parents=True)
    images = []
    for split, count in splits.items():
        for _ in range(count):
            number = len(images) + 1
            pixels = rng.integers(0, 255, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
            sentences = [{"raw": f"A photo of thing {number}, {n}.", "sentid": 10 * number + n} for n in range(2)]
            images.append({"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences})
    (folder / f"dataset_{folder.name}.json").write_text(json.dumps({"images": images}))
    return {str(image["imgid"]) for image in images if image["split"] == "val"}


def test_the_published_val_is_the_test_and_val_is_held_out_of_train(tmp_path: Path) -> None:
    published = photos(tmp_path / "flickr8k", {"train": 6, "val": 3})
    photos(tmp_path / "coco5k", {"train": 4, "val": 2})
    variables = {
        "FLICKR8K": str(tmp_path / "flickr8k"), "COCO5K": str(tmp_path / "coco5k"), "WORK": str(tmp_path / "work"),
        "GRID": "2", "HELD_OUT": "2", "TEXT_LINES": "300", "VALID_LINES": "20", "SYMBOLS": "120",
        "TEXT_ITERATIONS": "4", "VALIDATIONS": "2", "GPUS": "0", "TRAINING": " ".join(SMALL),
    }  # fmt: skip
    run("bash", SCRIPT, **variables)
    work = tmp_path / "work"
    sizes = {name: json.loads((work / name / "dataset.json").read_text())["splits"] for name in ("captions", "web")}
    assert {split: found["images"] for split, found in sizes["captions"].items()} == {"train": 4, "valid": 2, "test": 3}
    assert {split: found["images"] for split, found in sizes["web"].items()} == {"train": 4, "valid": 2}
    data = DataDirectory(work / "captions")
    assert {data.regions.image_id(int(row)) for row in data.pairs("test")} == published
    assert data.regions.region_counts(np.arange(1)).tolist() == [5]  # 2 × 2 cells and the whole
    averaged = load_checkpoint(work / "checkpoints" / "text" / "averaged.pt")
    assert averaged["extra_state"]["averaged"]
    assert run("bash", SCRIPT, **variables).stdout.strip().endswith("averaged.pt")  # done: all of it is there
    other = run("bash", SCRIPT, check=False, **{**variables, "GRID": "3", "SYMBOLS": "130"})
    assert other.returncode == 1 and f"error: {work} was made with other settings" in other.stderr
    assert "\n> GRID: 3\n" in other.stderr and "\n> SYMBOLS: 130\n" in other.stderr


def test_data_of_unknown_settings_are_refused(tmp_path: Path) -> None:
    """As an earlier version has left them; it says how to go on."""
    for name in ("flickr8k", "coco5k"):
        photos(tmp_path / name, {"train": 1})
    (tmp_path / "work" / "flickr8k.regions").mkdir(parents=True)
    variables = {name: str(tmp_path / name.lower()) for name in ("FLICKR8K", "COCO5K", "WORK")}
    done = subprocess.run(["bash", SCRIPT], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 1 and "it has no flickr8k.settings, which says with what settings." in done.stderr
    assert f"write them into {tmp_path / 'work' / 'flickr8k.settings'}:\nFLICKR8K: {tmp_path}" in done.stderr
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["flickr8k.regions"]


def test_folders_have_to_be_named(tmp_path: Path) -> None:
    done = run("bash", SCRIPT, check=False, WORK=str(tmp_path / "work"))
    assert done.returncode == 1 and "FLICKR8K: names the folder of Flickr8k" in done.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("files", [[], ["dataset_a.json", "dataset_b.json"]])
def test_a_folder_has_one_file_of_captions(files: list[str], tmp_path: Path) -> None:
    """Of two, the second one would be taken for the output."""
    photos(tmp_path / "coco5k", {"train": 1})
    (tmp_path / "flickr8k").mkdir()
    for name in files:
        (tmp_path / "flickr8k" / name).write_text("{}")
    variables = {"FLICKR8K": str(tmp_path / "flickr8k"), "COCO5K": str(tmp_path / "coco5k")}
    done = run("bash", SCRIPT, check=False, WORK=str(tmp_path / "work"), **variables)
    assert done.returncode == 1
    assert f"error: {tmp_path / 'flickr8k'} is to hold one file dataset_*.json: " in done.stderr
    assert all((tmp_path / "flickr8k" / name).read_text() == "{}" for name in files)
