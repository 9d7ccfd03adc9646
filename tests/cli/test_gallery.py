"""The program `xgpt-gallery` as users run it."""

from __future__ import annotations

import base64
import errno
import json
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pages.parsed import is_harmless, page_data, page_details, parsed
from tests.preloaded import python
from tests.test_hub_interface import SIZES
from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.cli.gallery import main
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.metrics.scores import score_captions
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.word_attention import Heads


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
    page = parsed(output.read_text(encoding="utf-8"))
    is_harmless(page)
    assert page.all("h1")[0].text == "Captions of the test images"
    cards, details = page_data(page)["cards"], page_details(page)
    assert [card["id"] for card in cards] == ["99", "15"]
    assert cards[0]["said"][0][0] == "something else <b>"
    assert cards[1]["said"][1][0] == "a ?"  # half a character has no UTF-8
    assert details["99"]["src"] is None and details["15"]["src"].startswith("data:image/jpeg;base64,")
    assert all(len(details[image]["boxes"]) >= 4 for image in ("99", "15"))
    assert details["15"]["said"][0]["ngrams"]
    assert {file.name for file in tmp_path.iterdir()} == {"photos", "page.html", "generate-test.txt", "results.json"}


def test_order_limit_split_and_link(tiny_data: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    output = tmp_path / "page.html"
    output.write_text("old")
    shared = ["--data", tiny_data, "--output", output, "--overwrite", "--metrics", "cider"]
    best = call_program(main, *shared, "--captions", *systems, "--order", "best", "--limit", 1, "--title", "A & B")
    assert best == (0, f"{output}: 1 image, 0.0 MB\n", "")
    page = parsed(output.read_text(encoding="utf-8"))
    assert [card["id"] for card in page_data(page)["cards"]] == ["15"]
    assert page.all("h1")[0].text == "A & B" and page_data(page)["total"] == 2

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
    assert f'"src":"photos/{said["images"][0]["id"]}.png"' in page
    assert "base64" not in page and '"boxes"' not in page
    copied = call_program(
        main, *shared, "--captions", f"v={tmp_path / 'valid.json'}", "--split", "valid",
        "--photos", tmp_path / "photos", "--copy-photos", "--photo-size", 32,
    )  # fmt: skip
    assert copied.status == 0, copied.stderr
    copies = sorted((tmp_path / "page.photos").iterdir())
    assert [copy.name for copy in copies] == sorted(f"{image['id']}.jpg" for image in said["images"])
    with Image.open(copies[0]) as copy:
        assert copy.size == (32, 24)
    assert f'"src":"page.photos/{copies[0].name}"' in output.read_text(encoding="utf-8")


def test_regions_of_another_store(
    tiny_data: Path, systems: list[str], tmp_path: Path, call_program, write_store
) -> None:
    output = tmp_path / "page.html"
    command = ["--data", tiny_data, "--captions", *systems, "--metrics", "cider", "--output", output]
    wider = write_store(tmp_path / "wider", feature_dim=4)
    assert call_program(main, *command, "--regions", wider).status == 0
    other = write_store(tmp_path / "other", images=[1, 2])
    assert "does not hold the images" in call_program(main, *command, "--overwrite", "--regions", other).error


def test_captions_without_spaces_between_words(tiny_data: Path, tmp_path: Path, call_program) -> None:
    """Scores are those of characters, unless --segment says otherwise."""
    data, generated, output = tmp_path / "data", tmp_path / "results.json", tmp_path / "page.html"
    shutil.copytree(tiny_data, data)
    file = data / "test.references.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    for annotation in said["annotations"]:
        annotation["caption"] = "一只狗在跑。" if annotation["image_id"] == 15 else "两个孩子"
    file.write_text(json.dumps(said), encoding="utf-8")
    captions = {"99": "两个孩子在跑", "15": "一只狗"}
    generated.write_text(json.dumps([{"image_id": i, "caption": text} for i, text in captions.items()]))
    references = DataDirectory(data).references("test")
    command = ["--data", data, "--captions", f"a={generated}", "--metrics", "cider", "--output", output, "--overwrite",
               "--regions", DataDirectory(tiny_data).regions_path]  # fmt: skip
    for options, segmentation in (([], "char"), (["--segment", "none"], "none")):
        done = call_program(main, *command, *options)
        assert done.status == 0, done.stderr
        assert ("without spaces between words: scores are of characters" in done.stderr) == (not options)
        page = parsed(output.read_text(encoding="utf-8"))
        scores = score_captions(captions, references, ["cider"], segmentation=segmentation)
        assert page.all("td")[0].text == f"{100 * scores.corpus['CIDEr']:.1f}"
        for card in page_data(page)["cards"]:
            assert card["said"][0][1] == [pytest.approx(scores.per_image[card["id"]]["CIDEr"], abs=1e-5)]
            values = page_details(page)[card["id"]]["said"][0]["ngrams"]
            rewards = sum(reward for _, reward, _ in values)
            assert rewards == pytest.approx(scores.per_image[card["id"]]["CIDEr"], abs=0.01)


def test_metrics_that_are_left_out(tiny_data: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    command = ["--data", tiny_data, "--captions", systems[0], "--output", tmp_path / "page.html", "--metrics"]
    done = call_program(main, *command, "cider,spice")
    assert done.status == 0
    if "SPICE" not in (tmp_path / "page.html").read_text(encoding="utf-8"):
        assert done.stderr.startswith("one: SPICE left out: ")
    assert "unknown metric 'clip'" in call_program(main, *command, "clip", "--overwrite").error


def test_originals_are_not_replaced_by_copies(
    tiny_data: Path, systems: list[str], tmp_path: Path, call_program
) -> None:
    """A folder of the copies' name may be somebody's photos; all in it would be removed."""
    photos, output = tmp_path / "page.photos", tmp_path / "page.html"
    (photos / "more").mkdir(parents=True)
    (photos / "1.jpg").write_bytes(b"precious")
    command = ["--data", tiny_data, "--captions", *systems, "--output", output, "--copy-photos", "--overwrite"]
    for source in (photos, photos / "more"):
        done = call_program(main, *command, "--photos", source)
        assert done.error == (
            f"{photos} is not replaced by copies: --photos {source} is in it; give the page another name"
        )
    done = call_program(main, *command, "--photos", tmp_path / "others")
    assert f"there is no page {output} that it belongs to" in done.error
    assert (photos / "1.jpg").read_bytes() == b"precious"


def test_a_page_that_cannot_be_written_leaves_no_copies(
    tiny_data: Path, systems: list[str], tmp_path: Path, call_program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be taken for somebody's photos, and the command could not be repeated."""
    (tmp_path / "photos").mkdir()
    for image_id in (15, 99):
        Image.new("RGB", (64, 48)).save(tmp_path / "photos" / f"{image_id}.png")
    output = tmp_path / "page.html"
    command = ["--data", tiny_data, "--captions", *systems, "--metrics", "cider", "--output", output,
               "--photos", tmp_path / "photos", "--copy-photos", "--overwrite"]  # fmt: skip
    before, write_text = sorted(tmp_path.iterdir()), Path.write_text

    def full(self: Path, *args: object, **options: object) -> int:
        if self.name.startswith(".page.html"):
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write_text(self, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        done = call_program(main, *command)
    assert done.error == f"{output} cannot be written: No space left on device"
    assert sorted(tmp_path.iterdir()) == before
    assert call_program(main, *command).status == 0
    assert {file.name for file in (tmp_path / "page.photos").iterdir()} == {"15.jpg", "99.jpg"}


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
    photos = ["--photos", tmp_path]
    assert "one of the two" in error("--captions", *systems, *photos, "--link-photos", "--copy-photos")
    assert "--copy-photos needs --photos PATH" in error("--captions", *systems, "--copy-photos")
    assert "--photo-size must be at least 16, got 1" in error("--captions", *systems, *photos, "--photo-size", 1)
    assert "--photo-size has no effect without --photos" in error("--captions", *systems, "--photo-size", 99)
    assert "--device has no effect without --attention" in error("--captions", *systems, "--device", "cpu")
    (tmp_path / "page.photos").mkdir()
    assert "page.photos exists; give the page another name" in error("--captions", *systems, *photos, "--copy-photos")
    assert not output.exists()
    output.write_text("precious")
    assert error("--captions", *systems) == f"{output} exists; give another name or --overwrite"
    assert output.read_text() == "precious"


def test_attention(tiny_data: Path, tiny_vocabulary: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    """What the page has is what the model says, to the 16 bits that it is written with."""
    config = XGPTConfig(feature_dim=DataDirectory(tiny_data).regions.feature_dim, **SIZES)
    torch.manual_seed(0)
    vocabulary = Vocabulary(tiny_vocabulary)
    model = XGPTModel.build_model(config, SimpleNamespace(target_dictionary=vocabulary.dictionary))
    captioner = XGPTHubInterface(Bundle(model.eval(), config, vocabulary, None, "regions of a test"))
    captioner.save(tmp_path / "bundle")
    output = tmp_path / "page.html"
    command = ["--data", tiny_data, "--captions", *systems, "--metrics", "cider", "--output", output]
    done = call_program(main, *command, "--attention", f"two={tmp_path / 'bundle'}")
    assert done.status == 0, done.stderr
    page = parsed(output.read_text(encoding="utf-8"))
    store = DataDirectory(tiny_data).regions
    for image_id, details in page_details(page).items():
        first, second = details["said"]
        assert "weights" not in first
        text = {"99": "a cat", "15": "a \ud83d"}[image_id]
        row = store.image_index(image_id)
        [expected] = captioner.attention_of(store, [row], [text])
        weights = np.frombuffer(base64.b64decode(second["weights"]), "<u2").reshape(expected.weights.shape)
        assert (weights.sum(axis=1) == 65_535).all()
        np.testing.assert_allclose(weights / 65_535, expected.weights, atol=2e-5)
        assert second["looks"] == [place for word in expected.words for place in (word.start, word.end)]
        np.testing.assert_allclose(np.array(details["boxes"]) / 10_000, store.boxes(row).ravel(), atol=6e-5)
    one = call_program(main, *command, "--overwrite", "--attention", f"two={tmp_path / 'bundle'}",
                       "--attention-layers", "2", "--attention-heads", "1,3")  # fmt: skip
    assert one.status == 0
    [of_one] = captioner.attention_of(store, [store.image_index("99")], ["a cat"], Heads([2], [1, 3]))
    said = page_details(parsed(output.read_text(encoding="utf-8")))["99"]["said"][1]
    found = np.frombuffer(base64.b64decode(said["weights"]), "<u2") / 65_535
    np.testing.assert_allclose(found, of_one.weights.ravel(), atol=2e-5)

    def error(*arguments: object) -> str:
        return call_program(main, *command, "--overwrite", *arguments).error

    assert "--attention three=…: there are no --captions of that name, only one, two" in error("--attention", "three=x")
    assert "--attention 'two' is not NAME=MODEL" in error("--attention", "two")
    assert "need models" in error("--attention-layers", "1")
    model_of_two = ["--attention", f"two={tmp_path / 'bundle'}"]
    assert "'1,x': numbers from 1 on, with commas" in error(*model_of_two, "--attention-heads", "1,x")
    for device in ("gpu", "cuda:77"):  # before captions are read
        refused = error(*model_of_two, "--device", device, "--captions", "missing=nowhere.txt")
        assert refused.startswith(f"--device {device} cannot be used: ")
    assert "attention of layer 3: the model's are 1 to 2" in error(*model_of_two, "--attention-layers", "3")


def test_attention_of_a_checkpoint_whose_regions_were_moved(
    tiny_data: Path, tiny_vocabulary: Path, systems: list[str], tmp_path: Path, call_program
) -> None:
    store = DataDirectory(tiny_data).regions
    config = XGPTConfig(feature_dim=store.feature_dim, **SIZES)
    model = XGPTModel.build_model(config, SimpleNamespace(target_dictionary=Vocabulary(tiny_vocabulary).dictionary))
    cfg = {"model": Namespace(**SIZES), "task": {"data": str(tiny_data), "regions": str(tmp_path / "gone")}}
    torch.save({"model": model.state_dict(), "cfg": cfg}, tmp_path / "checkpoint.pt")
    command = ["--data", tiny_data, "--captions", *systems, "--metrics", "cider", "--output", tmp_path / "page.html",
               "--attention", f"two={tmp_path / 'checkpoint.pt'}"]  # fmt: skip
    assert "which is not there: name it by --regions STORE" in call_program(main, *command).error
    done = call_program(main, *command, "--regions", store.path)
    assert done.status == 0, done.stderr
    page = parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert all("weights" in details["said"][1] for details in page_details(page).values())


def test_credits(tiny_data: Path, systems: list[str], tmp_path: Path, call_program) -> None:
    output, file = tmp_path / "page.html", tmp_path / "credits.json"
    command = ["--data", tiny_data, "--captions", *systems, "--metrics", "cider", "--output", output, "--credits", file]
    file.write_text(json.dumps({"COCO_val2014_000000000015.jpg": {"text": "by A", "url": "https://a.example/1"}}))
    assert call_program(main, *command).status == 0
    details = page_details(parsed(output.read_text(encoding="utf-8")))
    assert details["15"]["credit"] == ["by A", "https://a.example/1", None, None] and "credit" not in details["99"]
    for content, message in (
        ("[", "not JSON"),
        ("[]", "not {image id"),
        ('{"15": {"text": "a", "url": "javascript:alert(1)"}}', "image 15: url is 'javascript:alert(1)', not a link"),
        ('{"15": {"url": "https://a.example"}}', "image 15: an object with text"),
        ('{"15": {"text": 1}}', "image 15: text is 1, not a text"),
    ):
        file.write_text(content)
        assert message in call_program(main, *command, "--overwrite").error


def test_help_has_an_example(call_program) -> None:
    done = call_program(main, "--help")
    assert done.status == 0
    assert "xgpt-gallery --data data/coco --captions base=out/base/generate-test.txt" in done.stdout
