"""The programs `xgpt-export` and `xgpt-caption`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pages.parsed import is_harmless, page_data, page_details, parsed
from tests.test_hub_interface import build, photos  # noqa: F401  (a fixture)
from xgpt_fairseq import hub_interface
from xgpt_fairseq.cli import caption as caption_program
from xgpt_fairseq.cli import caption_outputs, extract_regions
from xgpt_fairseq.cli import export as export_program
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.regions.novelty import NoveltyDetector
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import Photo


@pytest.fixture(scope="module")
def bundle(tiny_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    build(tiny_vocabulary).save(path)
    return path


@pytest.fixture
def folder(photos: list[Path], tmp_path: Path) -> Path:  # noqa: F811
    """Three photos, a text file and a photo that is cut."""
    path = tmp_path / "holiday"
    path.mkdir()
    for photo in photos[:3]:
        (path / photo.name).write_bytes(photo.read_bytes())
    (path / "notes.txt").write_text("bread, milk")
    (path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    return path


def call(call_program: Callable[..., Any], *arguments: object) -> Any:
    return call_program(caption_program.main, *arguments)


def test_good_photos_are_captioned_and_the_others_named(
    call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path
) -> None:
    done = call(
        call_program, folder, "--path", bundle, "--json", tmp_path / "c.json", "--html", tmp_path / "c.html",
        "--title", "Summer & sun",
    )  # fmt: skip
    assert done.status == 0
    files = [folder / f"{number}.png" for number in range(3)]
    expected = XGPTHubInterface.from_path(bundle).caption(files)
    assert done.stdout == "".join(f"{file}\t{text}\n" for file, text in zip(files, expected, strict=True))
    assert f"not read: {folder / 'notes.txt'}: not a photo" in done.stderr
    assert f"not read: {folder / 'broken.jpg'}: " in done.stderr
    assert json.loads((tmp_path / "c.json").read_text()) == [
        {"file": str(file), "image_id": file.stem, "caption": text} for file, text in zip(files, expected, strict=True)
    ]
    html = (tmp_path / "c.html").read_text()
    assert str(tmp_path) not in html and str(folder) not in html  # names only
    page = parsed(html)
    is_harmless(page)
    assert page.all("h1")[0].text == "Summer & sun"
    cards, details = page_data(page)["cards"], page_details(page)
    assert [(card["id"], card["said"][0][0]) for card in cards] == [
        (file.name, text) for file, text in zip(files, expected, strict=True)
    ]
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in details.values())
    captioner = XGPTHubInterface.from_path(bundle)
    regions = captioner.extractor.extract([captioner.extractor.load(file) for file in files])
    searched = captioner.candidates_of_regions(regions, SearchOptions())
    for card, found in zip(cards, searched, strict=True):
        assert card["said"][0][1] == [pytest.approx(found[0].score, abs=1e-3)]
        [others] = [said["others"] for said in details[card["id"]]["said"]]
        assert others == [[each.text, pytest.approx(each.score, abs=1e-3)] for each in found[1:]]
    unread = [item.text for item in page.all("section")[0].all("li")]
    assert [text.partition(": ")[0] for text in unread] == ["broken.jpg", "notes.txt"]


def test_a_photo_that_the_network_does_not_take(
    call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one of those that are not read; the others have their captions."""

    def why_unfit(extractor: RegionExtractor, photo: Photo) -> str:
        return "the network takes no such photos" if photo.size == (72, 96) else ""

    monkeypatch.setattr(RegionExtractor, "why_unfit", why_unfit)
    done = call(call_program, folder, "--path", bundle, "--jsonl", tmp_path / "c.jsonl")
    assert done.status == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    found = {Path(line["file"]).name: line.get("error", "") for line in lines}
    assert found["0.png"] == "the network takes no such photos" and not found["1.png"] and not found["2.png"]


def test_a_photo_that_vanishes_before_the_page(
    call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = caption_outputs._page

    def vanishing(*arguments: Any) -> str:
        (folder / "1.png").unlink()
        return draw(*arguments)

    monkeypatch.setattr(caption_outputs, "_page", vanishing)
    written, page = tmp_path / "c.json", tmp_path / "c.html"
    done = call(call_program, folder, "--path", bundle, "--json", written, "--html", page)
    assert done.status == 1 and done.error == f"{folder / '1.png'}: not a readable photo: no such file"
    assert len(json.loads(written.read_text())) == 3 and not page.exists()


def test_the_page_shows_where_the_model_looks(
    call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "c.html"
    done = call(call_program, folder, "--path", bundle, "--html", page, "--attention", "--batch-size", 2)
    assert done.status == 0, done.stderr
    details = page_details(parsed(page.read_text()))
    found = XGPTHubInterface.from_path(bundle).caption(
        [folder / name for name in details], return_attention=True, beam=2
    )
    for each, best in zip(details.values(), found, strict=True):
        assert best.attention is not None
        [said] = each["said"]
        weights = np.frombuffer(base64.b64decode(said["weights"]), "<u2") / 65_535
        np.testing.assert_allclose(weights, best.attention.weights.ravel(), atol=1e-4)
        assert len(each["boxes"]) == 4 * len(best.attention.boxes)
    without = call(call_program, folder, "--path", bundle, "--attention")
    assert without.error == "--attention is drawn on the page of --html FILE"


def test_photos_of_one_name(
    call_program: Callable[..., Any],
    bundle: Path,
    folder: Path,
    photos: list[Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    """In JSON they have the ids that a region store gives them; photos of one id have a caption, but no JSON."""
    (folder / "more").mkdir()
    (folder / "more" / "1.png").write_bytes(photos[3].read_bytes())
    written = tmp_path / "c.json"
    assert call(call_program, folder, "--path", bundle, "--json", written).status == 0
    assert [each["image_id"] for each in json.loads(written.read_text())] == ["0", "1", "2", "more/1"]
    (folder / "01.png").write_bytes(photos[3].read_bytes())
    assert call(call_program, folder, "--path", bundle).stdout.count("\n") == 5
    done = call(call_program, folder, "--path", bundle, "--json", written, "--overwrite")
    assert done.error.startswith(f"{folder / '01.png'} and {folder / '1.png'} are both image 1: an image id must be")


def test_exit_status(call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path) -> None:
    strict = call(call_program, folder, "--path", bundle, "--strict")
    assert strict.status == 1 and strict.error == "--strict: 2 of 5 files could not be read"
    assert strict.stdout.count("\n") == 3
    none = call(call_program, folder / "notes.txt", folder / "gone.jpg", "--path", bundle)
    assert none.status == 1 and none.error == "none of the 2 files could be read as a photo"
    assert f"not read: {folder / 'gone.jpg'}: no such file" in none.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert call(call_program, empty, "--path", bundle).error == f"there are no files in {empty}"


def test_nothing_is_overwritten_unasked(
    call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text("mine")
    done = call(call_program, folder, "--path", bundle, "--json", tmp_path / "c.json")
    assert done.status == 1 and done.stdout == "" and (tmp_path / "c.json").read_text() == "mine"
    assert call(call_program, folder, "--path", bundle, "--json", tmp_path / "c.json", "--overwrite").status == 0
    assert len(json.loads((tmp_path / "c.json").read_text())) == 3


def test_a_photo_is_not_replaced_by_its_caption(
    call_program: Callable[..., Any], bundle: Path, folder: Path, tmp_path: Path
) -> None:
    photo = next(path for path in sorted(folder.iterdir()) if path.suffix == ".jpg")
    before = photo.read_bytes()
    done = call(call_program, photo, "--path", bundle, "--json", photo, "--overwrite")
    assert done.status == 1 and "is one of the photos" in done.error and photo.read_bytes() == before
    done = call(call_program, photo, "--path", bundle, "--json", tmp_path / "c", "--html", tmp_path / "c")
    assert done.status == 1 and "is named twice" in done.error


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--beam", 0, "--beam must be at least 1, got 0"),
        ("--lenpen", "nan", "--lenpen must be -10 to 10, got nan"),
        ("--batch-size", 0, "--batch-size must be at least 1, got 0"),
        ("--device", "cuda:77", "--device cuda:77 cannot be used: "),
        ("--title", "Mine", "--title is the title of a page: it needs --html or --serve"),
        ("--no-repeat-ngram-size", -1, "--no-repeat-ngram-size must be at least 0, got -1"),
        ("--no-early-stop", "--no-repeat-ngram-size=2", "--no-early-stop is for plain beam search: leave out --no-re"),
        ("--detections", "boxes.json", "--detections: the model was trained on a grid of 2 x 2, not on boxes"),
    ],
)
def test_options_that_make_no_sense(
    call_program: Callable[..., Any], bundle: Path, folder: Path, option: str, value: object, message: str
) -> None:
    done = call(call_program, folder, "--path", bundle, option, value)
    assert done.status == 1 and done.error.startswith(message)


def test_boxes_of_a_detector(
    call_program: Callable[..., Any], tiny_vocabulary: Path, folder: Path, tmp_path: Path
) -> None:
    build(tiny_vocabulary, grid=None).save(tmp_path / "bundle")
    without = call(call_program, folder, "--path", tmp_path / "bundle")
    assert without.status == 1 and without.error.startswith("the model was trained on the boxes of a detector")
    boxes = [{"image_id": n, "bbox": [2, 3, 30, 40], "category_id": 1, "score": 0.5} for n in range(3)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    done = call(call_program, folder, "--path", tmp_path / "bundle", "--detections", tmp_path / "boxes.json")
    assert done.status == 0 and done.stdout.count("\n") == 3


def test_as_many_boxes_as_in_training(
    call_program: Callable[..., Any],
    tiny_vocabulary: Path,
    photos: list[Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    """Photos have the captions that their store has, of which some boxes were left out."""
    captioner = build(tiny_vocabulary, grid=None)
    captioner.bundle.max_regions = 3
    captioner.save(tmp_path / "bundle")
    boxes = [
        {"image_id": n, "bbox": [k, 2 * k, 20 + 3 * k, 40], "category_id": 1, "score": 0.1 * k}
        for n in range(2)
        for k in range(1, 7)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    detections = ["--detections", tmp_path / "boxes.json"]
    done = call_program(
        extract_regions.main, *photos[:2], "--output", tmp_path / "store", *detections, "--max-regions", 3,
        "--image-size", 96, "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    scores = []
    for number, images in enumerate(([*photos[:2], *detections], [tmp_path / "store"])):
        lines = tmp_path / f"{number}.jsonl"
        assert call(call_program, *images, "--path", tmp_path / "bundle", "--jsonl", lines).status == 0
        scores.append([json.loads(line)["score"] for line in lines.read_text().splitlines()])
    assert len(scores[0]) == 2 and scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_a_region_store(
    call_program: Callable[..., Any], tiny_vocabulary: Path, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    build(tiny_vocabulary, extractor=False).save(tmp_path / "bundle")
    store = write_store(tmp_path / "store", feature_dim=1280, images=[7, 5])
    page = tmp_path / "c.html"
    done = call(call_program, store, "--path", tmp_path / "bundle", "--json", tmp_path / "c.json", "--html", page)
    assert done.status == 0
    captions = json.loads((tmp_path / "c.json").read_text())
    assert [each["image_id"] for each in captions] == ["7", "5"]
    assert done.stdout == "".join(f"{each['image_id']}\t{each['caption']}\n" for each in captions)
    details = page_details(parsed(page.read_text()))
    assert list(details) == ["7", "5"] and all(each["boxes"] and each["src"] is None for each in details.values())
    both = call(call_program, store, store, "--path", tmp_path / "bundle")
    assert both.status == 1 and both.error.startswith("one region store at a time")
    for option in ("--detections", "--backbone-weights"):
        done = call(call_program, store, "--path", tmp_path / "bundle", option, tmp_path / "c.json")
        assert done.status == 1 and done.error == f"{option} is for photos; a region store has its regions"


def far_from(photo: Path, bundle: Path) -> NoveltyDetector:
    """A detector to which that photo is novel, by its distance of 2."""
    captioner = XGPTHubInterface.from_path(bundle)
    [regions] = captioner.extractor.extract([captioner.extractor.load(photo)])
    mean = regions.features.mean(axis=0, dtype=np.float32)
    length = float(np.linalg.norm(mean))
    return NoveltyDetector(0 * mean, np.zeros((1, 1280), np.float32), length / 2, limit=1.99, group_limit=1.5)


def test_photos_and_stores_unlike_the_training_images(
    call_program: Callable[..., Any],
    tiny_vocabulary: Path,
    bundle: Path,
    folder: Path,
    photos: list[Path],  # noqa: F811
    write_store: Callable[..., Path],
    tmp_path: Path,
) -> None:
    known = build(tiny_vocabulary).bundle
    known.novelty = far_from(photos[1], bundle)
    known.write(tmp_path / "bundle")
    done = call(call_program, folder / "1.png", "--path", tmp_path / "bundle")
    assert done.status == 0 and done.stdout.count("\n") == 1
    assert f"warning: {folder / '1.png'} looks unlike the images that the model was trained on" in done.stderr
    known.novelty = NoveltyDetector(known.novelty.mean, known.novelty.directions, 1.0, limit=1e9, group_limit=1e-9)
    known.write(tmp_path / "bundle")
    store = write_store(tmp_path / "store", feature_dim=1280, images=range(1, 12))
    done = call(call_program, store, "--path", tmp_path / "bundle")
    assert "warning: these 11 images as a whole look unlike" in done.stderr
    assert "warning" not in call(call_program, folder, "--path", bundle).stderr


def test_about(call_program: Callable[..., Any], tiny_vocabulary: Path, bundle: Path, tmp_path: Path) -> None:
    done = call(call_program, "--about", "--path", bundle)
    assert done.status == 0 and done.stdout.endswith("\n\nIt has no model card.\n")
    assert "photos      efficientnet-lite0 at 96 pixels, a grid of 2 x 2\n" in done.stdout
    assert "trained on" not in done.stdout
    (tmp_path / "card.md").write_text("# Mine\n\nIt knows cats.\n")
    known = build(tiny_vocabulary, grid=None).bundle
    known.training = {"data": "pets", "images": 1234, "captions": 6170, "updates": 900, "started_from": "averaged.pt"}
    known.write(tmp_path / "pets")
    exported = call_program(
        export_program.main, tmp_path / "pets", "--output", tmp_path / "half", "--card", tmp_path / "card.md",
        "--dtype", "float16",
    )  # fmt: skip
    assert exported.status == 0 and "does not notice images unlike its training images" in exported.stdout
    done = call(call_program, "--about", "--path", tmp_path / "half")
    assert done.stdout.endswith("\n\n# Mine\n\nIt knows cats.\n")
    assert "trained on  pets: 1,234 images, 6,170 captions, 900 updates, started from averaged.pt\n" in done.stdout
    assert "at 96 pixels, boxes of a detector\n" in done.stdout


def test_about_captions_nothing(call_program: Callable[..., Any], bundle: Path, folder: Path) -> None:
    assert call(call_program, folder, "--about", "--path", bundle).error.startswith(
        "--about prints what the captioner is"
    )
    for option in ("--json", "--jsonl", "--html"):
        refused = call(call_program, "--about", "--path", bundle, option, folder / "file", "--num-shards", 2)
        assert refused.error == f"{option}, --num-shards have no effect with --about"
    assert not (folder / "file").exists()


def test_a_card_that_cannot_be_read(call_program: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_bytes(b"\xff\xfe")
    for name, reason in (("card.md", "is not UTF-8"), ("none.md", "No such file or directory")):
        done = call_program(export_program.main, bundle, "--output", tmp_path / "b", "--card", tmp_path / name)
        assert done.status == 1 and done.error == f"--card {tmp_path / name}: {reason}"
    assert not (tmp_path / "b").exists()


def test_the_captioner_of_the_package(
    call_program: Callable[..., Any], bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub_interface, "RELEASED", bundle)
    assert call(call_program, folder).stdout == call(call_program, folder, "--path", bundle).stdout != ""
    monkeypatch.setattr(hub_interface, "RELEASED", tmp_path / "none")
    assert "no captioner comes with this version" in call(call_program, folder).error


def test_export_says_what_a_bundle_can_do(
    call_program: Callable[..., Any], tiny_vocabulary: Path, bundle: Path, tmp_path: Path
) -> None:
    done = call_program(export_program.main, bundle, "--output", tmp_path / "copy")
    assert done.status == 0 and done.stdout.endswith("captions photos and region stores\n")
    again = call_program(export_program.main, bundle, "--output", tmp_path / "copy")
    assert again.status == 1 and "exists and is not empty; --overwrite" in again.error
    assert call_program(export_program.main, bundle, "--output", tmp_path / "copy", "--overwrite").status == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    refused = call_program(export_program.main, bundle, "--output", tmp_path / "mine", "--overwrite")
    assert refused.status == 1 and "is not a bundle (it has no bundle.json), and is not replaced" in refused.error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    for options, words in (({"extractor": False}, "captions only region stores"), ({"grid": None}, "--detections")):
        build(tiny_vocabulary, **options).save(tmp_path / "other")
        assert words in call_program(export_program.main, tmp_path / "other", "--output", tmp_path / words).stdout
    file = call_program(export_program.main, bundle, "--output", bundle / "dict.txt")
    assert file.status == 1 and file.error.endswith("is a file; a bundle is a folder")
