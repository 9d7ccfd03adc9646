"""The program `xgpt-gallery` as users run it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.preloaded import python
from xgpt_fairseq.cli.gallery import main


@pytest.fixture
def systems(tiny_data: Path, tmp_path: Path) -> list[str]:
    """NAME=FILE of two systems on the tiny test images, 99 and 15: fairseq-generate's output and COCO results."""
    said = json.loads((tiny_data / "test.references.json").read_text())
    assert [image["id"] for image in said["images"]] == [99, 15]
    first = next(annotation["caption"] for annotation in said["annotations"] if annotation["image_id"] == 15)
    generated, results = tmp_path / "generate-test.txt", tmp_path / "results.json"
    generated.write_text(f"D-1\t-0.5\t{first}\nD-0\t-0.7\tsomething else <b>\n", encoding="utf-8")
    records = [{"image_id": 15, "caption": "a \ud83d"}, {"image_id": "COCO_val2014_000000000099", "caption": "a cat"}]
    results.write_text(json.dumps(records))
    return [f"one={generated}", f"two={results}"]


def test_as_a_program(tiny_data: Path, systems: list[str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (64, 48)).save(photos / "COCO_val2014_000000000015.jpg")
    output = tmp_path / "page.html"
    command = [python(), "-m", "xgpt_fairseq.cli.gallery", "--data", tiny_data, "--captions", *systems,
               "--photos", photos, "--regions", "--metrics", "bleu,cider", "--output", output]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}: 2 images, 0.0 MB\n"
    assert done.stderr == f"{photos} has no photo of 1 image: regions are drawn instead\n"
    page = output.read_text(encoding="utf-8")
    assert "<h1>Captions of the test images</h1>" in page
    assert "something else &lt;b&gt;" in page
    assert '<p dir="auto">a ?</p>' in page  # half a character has no UTF-8
    assert page.count("<img ") == 1 and page.count("<svg ") == 2
    assert page.index('data-id="99"') < page.index('data-id="15"')
    assert {file.name for file in tmp_path.iterdir()} == {"photos", "page.html", "generate-test.txt", "results.json"}


def test_order_limit_split_and_link(tiny_data: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    output = tmp_path / "page.html"
    output.write_text("old")
    shared = ["--data", tiny_data, "--output", output, "--overwrite", "--metrics", "cider"]
    best = call_program(main, *shared, "--captions", *systems, "--order", "best", "--limit", 1, "--title", "A & B")
    assert best == (0, f"{output}: 1 image, 0.0 MB\n", "")
    page = output.read_text(encoding="utf-8")
    assert 'data-id="15"' in page and 'data-id="99"' not in page
    assert "<h1>A &amp; B</h1>" in page and "1 of 2 images" in page

    said = json.loads((tiny_data / "valid.references.json").read_text())
    (tmp_path / "valid.json").write_text(json.dumps([{"image_id": i["id"], "caption": "a"} for i in said["images"]]))
    (tmp_path / "photos").mkdir()
    for image in said["images"]:
        Image.new("RGB", (64, 48)).save(tmp_path / "photos" / f"{image['id']}.png")
    linked = call_program(
        main, *shared, "--captions", f"v={tmp_path / 'valid.json'}", "--split", "valid",
        "--photos", tmp_path / "photos", "--link-photos",
    )  # fmt: skip
    assert linked.status == 0, linked.stderr
    page = output.read_text(encoding="utf-8")
    assert f'src="photos/{said["images"][0]["id"]}.png"' in page
    assert "base64" not in page and "<svg" not in page


def test_regions_of_another_store(
    tiny_data: Path, systems: list[str], tmp_path: Path, call_program, write_store
) -> None:
    output = tmp_path / "page.html"
    command = ["--data", tiny_data, "--captions", *systems, "--metrics", "cider", "--output", output]
    wider = write_store(tmp_path / "wider", feature_dim=4)
    assert call_program(main, *command, "--regions", wider).status == 0
    other = write_store(tmp_path / "other", images=[1, 2])
    assert "does not hold the images" in call_program(main, *command, "--overwrite", "--regions", other).error


def test_metrics_that_are_left_out(tiny_data: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    command = ["--data", tiny_data, "--captions", systems[0], "--output", tmp_path / "page.html", "--metrics"]
    done = call_program(main, *command, "cider,spice")
    assert done.status == 0
    if "SPICE" not in (tmp_path / "page.html").read_text(encoding="utf-8"):
        assert done.stderr.startswith("one: SPICE left out: ")
    assert "unknown metric 'clip'" in call_program(main, *command, "clip", "--overwrite").error


def test_bad_input(tiny_data: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    output = tmp_path / "page.html"

    def error(*arguments: object, data: Path = tiny_data) -> str:
        done = call_program(main, "--data", data, "--output", output, "--metrics", "cider", *arguments)
        assert done.status == 1 and done.stdout == ""
        return done.error

    assert "is not a data directory" in error("--captions", *systems, data=tmp_path)
    assert "no captions for split 'val'; it has: " in error("--captions", *systems, "--split", "val")
    assert "--limit must be at least 1, got 0" in error("--captions", *systems, "--limit", "0")
    for bad in ("generate-test.txt", "=generate-test.txt", "name="):
        assert f"--captions '{bad}' is not NAME=FILE" in error("--captions", bad)
    assert "are both called 'one'; names must differ" in error("--captions", *systems, systems[0])
    assert "nowhere.txt: cannot be read" in error("--captions", "one=nowhere.txt")
    assert "no photo of the 2 images" in error("--captions", *systems, "--photos", tmp_path)
    assert not output.exists()
    output.write_text("precious")
    assert error("--captions", *systems) == f"{output} exists; give another name or --overwrite"
    assert output.read_text() == "precious"


def test_help_has_an_example(call_program) -> None:
    done = call_program(main, "--help")
    assert done.status == 0
    assert "xgpt-gallery --data data/coco --captions base=out/base/generate-test.txt" in done.stdout
