"""The comparison of kinds of regions: which images it takes, what it says, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import python
from tests.scripts import example
from xgpt_fairseq.regions.store import RegionStore

compare_regions = example("own_photos/compare_regions.py")


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    splits = {1: "train", 2: "restval", 3: "val", 4: "test", 5: "train", 6: "test"}
    images = [{"filename": f"COCO_val2014_{i:012d}.jpg", "split": s, "sentences": []} for i, s in splits.items()]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
    return path


def photos(folder: Path, *numbers: int) -> Path:
    folder.mkdir()
    for number in numbers:
        (folder / f"{number:012d}.jpg").touch()
    return folder


def test_images_with_a_photo_train_or_test(captions: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.json"
    assert compare_regions.select(captions, photos(tmp_path / "photos", 1, 2, 3, 4), chosen) == (2, 2)
    images = json.loads(chosen.read_text(encoding="utf-8"))["images"]
    assert [(int(image["filename"][-16:-4]), image["split"]) for image in images] == [
        (1, "train"), (2, "train"), (3, "test"), (4, "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("there", [(1, 5), (4,), ()])
def test_photos_of_both_parts_are_needed(captions: Path, tmp_path: Path, there: tuple[int, ...], call_program) -> None:
    outcome = call_program(
        compare_regions.main, "--photos", photos(tmp_path / "photos", *there), "--captions", captions,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert outcome.status
    assert "both are needed" in outcome.error


@pytest.mark.parametrize("given", [True, False])
def test_sizes_of_photos_come_from_a_file_that_has_them(
    given: bool, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Karpathy's own files have none, and xgpt-import-regions refuses such a file."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(compare_regions, "call", lambda *arguments: calls.append(arguments))
    args = argparse.Namespace(
        output=tmp_path, photos=tmp_path, detections=None, features=tmp_path / "f", captions=captions,
        sizes=tmp_path / "sizes.json" if given else None,
    )  # fmt: skip
    compare_regions.make_stores(args)
    assert (args.sizes in calls[-1]) == given and captions not in calls[-1]
    images = json.loads(captions.read_text(encoding="utf-8"))["images"]
    captions.write_text(json.dumps({"images": [image | {"width": 4, "height": 3} for image in images]}))
    compare_regions.make_stores(args)
    assert calls[-1][calls[-1].index("--sizes") + 1] == (args.sizes if given else captions)


def test_a_start_needs_its_vocabulary(captions: Path, tmp_path: Path, call_program: Callable) -> None:
    outcome = call_program(
        compare_regions.main, "--photos", tmp_path, "--captions", captions, "--start", "text.pt", "--output",
        tmp_path / "out",
    )  # fmt: skip
    assert outcome.error == "--start needs --vocabulary, the one that the checkpoint was trained with"


def test_a_program_that_fails_stops_it_and_names_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", python())
    with pytest.raises(compare_regions.DataError, match=r"xgpt-evaluate failed with status 2; see .*e.log"):
        compare_regions.call("xgpt-evaluate", "--no-such-option", log=tmp_path / "e.log")
    assert "xgpt-evaluate: error: " in (tmp_path / "e.log").read_text(encoding="utf-8")


def test_the_table(tiny_store: Path) -> None:
    scores = {"grid": [{"CIDEr": 40.0, "BLEU@4": 10.0, "METEOR": 5.0}, {"CIDEr": 42.0, "BLEU@4": 10.0, "METEOR": 7.0}]}
    table = compare_regions.table(scores, {"grid": RegionStore(tiny_store)})
    assert table.splitlines()[-1] == "| grid | 4 | 2 | 41.0 ± 1.4 | 10.0 ± 0.0 | 6.0 ± 1.4 |"


@pytest.fixture
def compared(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_program: Callable[..., Any]
) -> Callable[..., Any]:
    """compared(*options): the comparison in tmp_path/out, whose stores are empty and whose captioners are none."""

    def made(program: str, *arguments: object) -> None:
        Path(str(arguments[arguments.index("--output") + 1])).mkdir()

    monkeypatch.setattr(compare_regions, "call", made)
    monkeypatch.setattr(compare_regions, "captioner", lambda *arguments: {})
    monkeypatch.setattr(compare_regions, "RegionStore", lambda store: None)
    monkeypatch.setattr(compare_regions, "table", lambda scores, stores: f"the table of {' '.join(stores)}\n")
    folder = photos(tmp_path / "photos", 1, 2, 3, 4)
    command = ["--photos", folder, "--captions", captions, "--output", tmp_path / "out"]
    return lambda *options: call_program(compare_regions.main, *command, *options)


@pytest.mark.parametrize("option", ["--updates", "--photos", "--captions", "--vocabulary"])
def test_results_of_other_settings_are_refused(
    option: str, compared: Callable[..., Any], captions: Path, tmp_path: Path
) -> None:
    assert compared().status == 0 and compared("--seeds", "4,5").status == 0
    dataset = (tmp_path / "out" / "dataset.json").read_text(encoding="utf-8")
    other = {"--updates": "1000", "--photos": photos(tmp_path / "other", 1, 4), "--vocabulary": tmp_path / "v"}
    other["--captions"] = tmp_path / "other.json"
    other["--captions"].write_text(captions.read_text(encoding="utf-8"), encoding="utf-8")
    done = compared(option, other[option])
    assert done.status == 1 and f"was made with other {option} (" in done.error
    assert f"now {other[option]})" in done.error
    assert (tmp_path / "out" / "dataset.json").read_text(encoding="utf-8") == dataset


def test_kinds_of_regions_may_be_added(compared: Callable[..., Any], tmp_path: Path) -> None:
    compared()
    assert "the table of grid provided\n" in compared("--features", tmp_path / "f").stdout
    assert compared().status == 0  # the grid alone
    refused = compared("--features", tmp_path / "g")
    assert f"other --features ({tmp_path / 'f'}, now {tmp_path / 'g'})" in refused.error


def test_results_of_unknown_settings_are_refused(compared: Callable[..., Any], tmp_path: Path) -> None:
    """The error says how to go on with them."""
    compared()
    settings = tmp_path / "out" / "settings.json"
    before = json.loads(settings.read_text(encoding="utf-8"))
    settings.unlink()
    refused = compared()
    assert refused.status == 1 and f"{tmp_path / 'out'} was made by an earlier version" in refused.error
    *_, said = refused.error.partition(f"write them into {settings}: ")
    assert json.loads(said) == before
    settings.write_text(said, encoding="utf-8")
    assert compared().status == 0
