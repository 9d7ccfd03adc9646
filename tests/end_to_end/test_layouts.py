"""Every layout of docs/layouts.md, typed as the page has it: each photo has exactly its captions.

Which photo a row of the store is, is told by what it shows, not by its name.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from tests.end_to_end.layouts import COUNT, LAYOUTS, Layout, drawn, make, page_rows
from tests.end_to_end.programs import PLUGIN, ROOT, generated
from xgpt_fairseq.cli import extract_regions, learn_bpe, prepare_captions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.vision.photo_names import names_of_photos

PAGE = list(page_rows(ROOT / "docs" / "layouts.md"))
COUNTS = re.compile(r"^\w+: \d+ images, \d+ captions|^captions found their photos: .*", re.MULTILINE)
# A data directory is the same thing whatever it was made of: these are also trained on, of one file and of many, with
# splits of their own and held out.
TRAINED = {"kaggle_flickr8k", "coco_2017", "own_csv", "tar_shards", "token_file"}
FAST = ["--image-size", "96", "--grid", "2", "--workers", "0"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(COUNT, D) the feature of each whole photo, from photos that are named by their numbers."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "photos").mkdir()
    for number in range(COUNT):
        drawn(number).save(folder / "photos" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(folder / "photos"), "--output", str(folder / "regions"), *FAST])
        extract_regions.main()
    store = RegionStore(folder / "regions")
    return np.stack([store.features(store.image_index(number))[0].astype(np.float32) for number in range(COUNT)])


def photo_of(feature: np.ndarray, shown: np.ndarray) -> int:
    """The photo whose feature is nearest, by far."""
    distances = np.linalg.norm(shown - feature.astype(np.float32), axis=1)
    first, second = np.sort(distances)[:2]
    assert first < second / 1.5
    return int(distances.argmin())


def what_came_out(data: Path, shown: np.ndarray) -> dict[str, dict[int, list[str]]]:
    """Split → photo → captions, of a data directory."""
    directory = DataDirectory(data)
    found: dict[str, dict[int, list[str]]] = {}
    for file in data.glob("*.pairs.npy"):
        split = file.name.removesuffix(".pairs.npy")
        texts = [a["caption"] for a in json.loads((data / f"{split}.references.json").read_text())["annotations"]]
        for row, text in zip(np.load(file).tolist(), texts, strict=True):
            photo = photo_of(directory.regions.features(row)[0], shown)
            found.setdefault(split, {}).setdefault(photo, []).append(" ".join(text.split()))
    return found


def check(found: dict[str, dict[int, list[str]]], made: Layout) -> None:
    expected = {{"val": "valid"}.get(split, split): photos for split, photos in made.expected.items()}
    if list(expected) == ["all"] or (list(expected) == ["train"] and "valid" in found):  # held out by the program
        assert {"train", "valid"} <= found.keys()
        together = {photo: texts for photos in found.values() for photo, texts in photos.items()}
        assert sum(map(len, found.values())) == len(together)
        assert together == next(iter(expected.values()))
    else:
        assert found == expected


def test_the_page_has_every_layout() -> None:
    assert len(PAGE) == len(LAYOUTS)
    assert {layout.__name__ for layout in LAYOUTS} >= TRAINED


@pytest.mark.parametrize(
    ("layout", "row"), zip(LAYOUTS, PAGE, strict=True), ids=lambda each: getattr(each, "__name__", "")
)
def test_a_layout_comes_in_as_the_page_says(
    call_program: Callable[..., Any],
    layout: Callable[[Layout], None],
    row: tuple[str, list[str], list[str]],
    shown: np.ndarray,
    tiny_vocabulary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained_and_captioned: Callable[[Path, Path], None],
) -> None:
    _, photos, captions = row
    # of so few photos a tenth may be none
    captions = [word.replace("=0.1", "=0.3") for word in captions]
    made = make(layout, tmp_path / "layout")
    monkeypatch.chdir(made.folder)
    checked = call_program(prepare_captions.main, *captions, "--check-photos", *photos)
    assert checked.status == 0, checked.stderr
    done = call_program(extract_regions.main, *photos, "--output", "regions", *FAST)
    assert done.status == 0, done.stderr
    if layout.__name__ == "nocaps":  # no training captions: the vocabulary is that of the model
        shutil.copytree(tiny_vocabulary, "vocabulary")
    else:
        done = call_program(learn_bpe.main, "--input", *captions, "--output", "vocabulary", "--symbols", 60)
        assert done.status == 0, done.stderr
    words = ["--vocabulary", "vocabulary", "--regions", "regions", "--output", "data"]
    done = call_program(prepare_captions.main, *captions, *words)
    assert done.status == 0, done.stderr
    assert (counts := COUNTS.findall(checked.stdout)) and counts == COUNTS.findall(done.stdout)
    names, stored = names_of_photos([Path(word) for word in photos])[0], RegionStore("regions")
    assert [names.image_id(index) for index in range(len(names))] == stored.image_ids()
    assert [names.folder_parts(index) for index in range(len(names))] == list(
        map(stored.folder_parts, range(len(names)))
    )
    assert names.folders == stored.folders
    found = what_came_out(made.folder / "data", shown)
    check(found, made)
    if layout.__name__ in TRAINED:
        trained_and_captioned(made.folder / "data", tmp_path)
        assert len(generated(tmp_path, "valid")) == len(found["valid"])


@pytest.fixture(scope="module")
def trained_and_captioned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path], None]:
    """f(data, folder): two updates on *data*, and captions of its split valid in *folder*, by fairseq in this process.

    The command lines are read once: that takes longer than all else here.
    """
    from fairseq_cli import generate, train

    save = tmp_path_factory.mktemp("checkpoints")
    small = ["--layers", "1", "--hidden-size", "16", "--ffn-size", "32", "--attention-heads", "2"]
    shared = ["DATA", "--user-dir", str(PLUGIN), "--task", "xgpt_caption", "--cpu", "--batch-size", "16"]
    shared += ["--num-workers", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fairseq-train", *shared])  # --user-dir is read from there
        training = convert_namespace_to_omegaconf(
            options.parse_args_and_arch(
                options.get_training_parser(),
                [*shared, "--arch", "xgpt_demo", *small, "--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-3",
                 "--max-update", "2", "--save-dir", str(save)],
            )
        )  # fmt: skip
        path = ["--path", str(save / "checkpoint_last.pt"), "--gen-subset", "valid", "--beam", "2", "--max-len-b", "9"]
        generation = convert_namespace_to_omegaconf(
            options.parse_args_and_arch(options.get_generation_parser(), [*shared, *path, "--results-path", "RESULTS"])
        )

    def run(data: Path, folder: Path) -> None:
        (save / "checkpoint_last.pt").unlink(missing_ok=True)
        training.task.data = generation.task.data = str(data)
        generation.common_eval.results_path = str(folder)
        train.main(training)
        generate.main(generation)

    return run
