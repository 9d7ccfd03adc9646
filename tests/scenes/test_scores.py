"""The ceiling of the scenes' captions, and which facts captions get right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.cli import score_scenes
from xgpt_fairseq.scenes import dataset, scores


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 test scenes; the file only needs its captions and facts."""
    names = [dataset.Name(1, "scenes", "test", number) for number in range(40)]
    images = [
        {"filename": name.filename, "split": "test", "facts": dataset.facts(dataset.scene_of(name), 256),
         "sentences": [{"raw": text} for text in dataset.texts_of(name)[0]]}
        for name in names
    ]  # fmt: skip
    file = tmp_path_factory.mktemp("scores") / "dataset_scenes.json"
    file.write_text(json.dumps({"version": 1, "images": images}))
    return file


def test_people_agree_much_but_not_wholly(data: Path) -> None:
    images = scores.read_images(data, "test")
    assert 2 < scores.ceiling(scores.references(data, images)) < 5


def test_the_ceiling_of_captions_that_agree_wholly(data: Path) -> None:
    images = scores.read_images(data, "test")
    same = {name: {"sentences": image["sentences"][:1] * 3} for name, image in images.items()}
    assert scores.ceiling(scores.references(data, same)) == pytest.approx(10)


def test_the_program(call_program: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    images = json.loads(data.read_text())["images"]
    captions = [image["sentences"][0]["raw"] for image in images]
    captions[:4] = ["a thing", "a thing", "a thing", "a thing"]
    results = tmp_path / "results.json"
    results.write_text(
        json.dumps(
            [{"image_id": Path(i["filename"]).stem, "caption": c} for i, c in zip(images, captions, strict=True)]
        )
    )
    done = call_program(score_scenes.main, data, "--captions", results)
    assert done.status == 0, done.stderr
    ceiling, these, *shares = done.stdout.splitlines()
    assert ceiling.startswith("ceiling: CIDEr ") and ceiling.endswith(
        " of a true caption against the others, 40 images"
    )
    assert these.startswith("these captions: CIDEr ")
    assert shares == [" 90.0 %  kinds", " 90.0 %  kinds and colours", " 90.0 %  relation", " 90.0 %  all of it"]


def test_errors(call_program: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    assert call_program(score_scenes.main, data, "--split", "unseen").error == (
        f"{data} has no split 'unseen'; it has: test"
    )
    web = tmp_path / "dataset_web.json"
    image = {"filename": "web_train_00000.jpg", "split": "train", "sentences": [{"raw": "a cup"}]}
    web.write_text(json.dumps({"version": 1, "images": [image]}))
    assert call_program(score_scenes.main, web, "--split", "train").error == (
        f"{web}: an image has one caption only, there is no other to compare it with"
    )
