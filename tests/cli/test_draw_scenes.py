"""The program that draws the quickstart's scenes: what it writes, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.folders import contents
from tests.scenes.test_dataset import COUNTS, OPTIONS
from xgpt_fairseq.cli import draw_scenes
from xgpt_fairseq.scenes import dataset


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set that the options give, by one process."""
    output = tmp_path_factory.mktemp("scenes") / "made"
    dataset.write_data_set(output, seed=1, counts=COUNTS, pixels=96, workers=1)
    return output


def test_the_program(
    call_program: Callable[..., Any], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, sheet = tmp_path / "made", tmp_path / "sheet.png"
    done = call_program(
        draw_scenes.main, "--output", output, *OPTIONS, "--pixels", 96, "--workers", 2, "--sheet", sheet
    )
    assert done.status == 0
    assert "unseen      4 images" in done.stdout
    assert contents(output) == contents(made)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert picture.width > 4 * 96 and picture.height > 3 * 96
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "sheet.png"]


def test_without_web_images(call_program: Callable[..., Any], tmp_path: Path) -> None:
    small = ["--train", 2, "--val", 1, "--test", 1, "--unseen", 1, "--web-train", 0, "--web-val", 0, "--pixels", 64]
    done = call_program(draw_scenes.main, "--output", tmp_path / "made", *small)
    assert done.status == 0 and "dataset_web" not in done.stdout
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == ["dataset_scenes.json", "images"]
    assert len(list((tmp_path / "made" / "images").iterdir())) == 5


def test_it_refuses_to_overwrite(call_program: Callable[..., Any], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letters.txt").write_text("dear")
    assert call_program(draw_scenes.main, "--output", mine).error == f"{mine} exists; pass --overwrite to replace it"
    error = call_program(draw_scenes.main, "--output", mine, "--overwrite").error
    assert error == f"{mine} does not hold scenes (it has no dataset_scenes.json): it is not replaced"
    assert contents(mine) == {"letters.txt": b"dear"}

    output = tmp_path / "made"
    small = ["--output", output, *OPTIONS, "--pixels", 64]
    assert call_program(draw_scenes.main, *small).status == 0
    before = contents(output)
    assert (
        call_program(draw_scenes.main, *small, "--seed", 2).error == f"{output} exists; pass --overwrite to replace it"
    )
    assert contents(output) == before
    (output / "regions").mkdir()
    error = call_program(draw_scenes.main, *small, "--seed", 2, "--overwrite").error
    assert error == f"{output} also holds regions: move that away first, it would be deleted"
    (output / "regions").rmdir()
    assert call_program(draw_scenes.main, *small, "--seed", 2, "--overwrite").status == 0
    assert contents(output)["dataset_web.json"] != before["dataset_web.json"]
    assert contents(output).keys() == before.keys()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: name --output DIR, --sheet FILE or both"),
        (["--output", "new", "--val", "0"], "--val must be at least 1, got 0"),
        (["--output", "new", "--web-val", "-1"], "--web-val must be at least 0, got -1"),
        (
            ["--output", "new", "--web-val", "0"],
            "--web-train and --web-val: images for both, or for neither (0 leaves the set out)",
        ),
        (["--output", "new", "--pixels", "20"], "--pixels must be at least 64 (for things to be seen), got 20"),
        (["--sheet", "sheet.pdf"], "--sheet sheet.pdf must end in .png or .jpg"),
    ],
)
def test_bad_options(call_program: Callable[..., Any], arguments: list[str], message: str) -> None:
    assert call_program(draw_scenes.main, *arguments).error == message


def test_without_pillow(call_program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    error = call_program(draw_scenes.main, "--output", tmp_path / "made").error
    assert error == 'drawing needs Pillow: pip install "xgpt-fairseq[photos]"'
