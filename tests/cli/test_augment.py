"""The program `xgpt-augment`: what it draws, keeps and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.folders import contents
from tests.stores import other_features
from xgpt_fairseq.augmentation import generate as draw
from xgpt_fairseq.augmentation.filters import REASONS, repeats_phrase
from xgpt_fairseq.augmentation.output import write_retrieval
from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.cli import augment as program
from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import build_objectives
from xgpt_fairseq.search.generator import SearchOptions

SIZES = {"layers": 2, "hidden_size": 32, "ffn_size": 64, "attention_heads": 4, "max_target_positions": 40}
TRAIN_IMAGES = 8


def learned(tiny_data: Path) -> XGPTHubInterface:
    """A model that has learned the tiny training captions."""
    directory = DataDirectory(tiny_data)
    dictionary = directory.vocabulary.dictionary
    config = XGPTConfig(feature_dim=16, dropout=0.0, attention_dropout=0.0, **SIZES)
    torch.manual_seed(3)
    model = XGPTModel.build_model(config, SimpleNamespace(target_dictionary=dictionary))
    dataset = CaptionDataset(
        directory.captions("train"), directory.pairs("train"), directory.regions, build_objectives(["ic"], dictionary),
        split="train", pad=dictionary.pad(), captions_per_image=0,
    )  # fmt: skip
    batch = dataset.collater([dataset[index] for index in range(len(dataset))])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        logits, _ = model(**batch["net_input"])
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["target"].flatten(), ignore_index=dictionary.pad()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return XGPTHubInterface(
        Bundle(model, config, directory.vocabulary, extractor_settings=None, trained_on="tiny regions")
    )


@pytest.fixture(scope="module")
def captioner(tiny_data: Path) -> XGPTHubInterface:
    return learned(tiny_data)


@pytest.fixture(scope="module")
def bundle(captioner: XGPTHubInterface, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    captioner.save(path)
    return path


@pytest.fixture
def call(call_program: Callable[..., Any], tiny_data: Path, bundle: Path, tmp_path: Path) -> Callable[..., Any]:
    """call(*options): augment the tiny data to `new` in the test's folder."""

    def call(*options: object, data: Path = tiny_data) -> Any:
        return call_program(
            program.main, data, "--path", bundle, "--output", tmp_path / "new", "--batch-size", 3, "--device", "cpu",
            *options,
        )  # fmt: skip

    return call


def karpathy(folder: Path) -> dict[str, dict[str, Any]]:
    """Image id → its entry in captions.karpathy.json."""
    images = json.loads((folder / "captions.karpathy.json").read_text())["images"]
    return {str(image["cocoid"]): image for image in images}


def test_what_is_kept_and_written(call: Callable[..., Any], tiny_data: Path, tmp_path: Path) -> None:
    done = call("--per-image", 2.3, "--temperature", 1.3)
    assert done.status == 0, done.stderr
    new, old = DataDirectory(tmp_path / "new"), DataDirectory(tiny_data)
    assert not list(tmp_path.glob(".*"))
    report = json.loads((tmp_path / "new" / "augmentation.json").read_text())
    counts = report["counts"]
    assert (counts["images"], counts["original"], counts["missing"]) == (TRAIN_IMAGES, 39, 0)
    assert counts["generated"] == round(2.3 * TRAIN_IMAGES)
    assert counts["drawn"] == counts["generated"] + counts["surplus"] + sum(report["dropped"].values())
    assert list(report["dropped"]) == list(REASONS) and report["dropped"]["copy_of_original"] > 0

    vocabulary, images = new.vocabulary, karpathy(tmp_path / "new")
    originals = old.references("train").captions
    references = new.references("train").captions
    assert list(references) == list(originals)
    for image_id, texts in references.items():
        own = originals[image_id]
        assert texts[: len(own)] == own
        marked = [(sentence["raw"], sentence.get("generated", False)) for sentence in images[image_id]["sentences"]]
        assert marked == [(text, place >= len(own)) for place, text in enumerate(texts)]
        generated = [vocabulary.encode(text) for text in texts[len(own) :]]
        assert len(generated) in (2, 3) and len(set(generated)) == len(generated)
        assert not set(generated) & {vocabulary.encode(text) for text in own}
        assert not any(repeats_phrase(text, 3) or "<unk>" in text for text in texts[len(own) :])
    for split in ("valid", "test"):
        assert new.references(split).captions == old.references(split).captions
        assert new.manifest.splits[split] == old.manifest.splits[split]
        assert not any("generated" in s for i in images.values() if i["split"] == "val" for s in i["sentences"])
    assert new.regions.path.resolve() == old.regions.path.resolve()
    assert (tmp_path / "new" / "AUGMENTATION.md").read_text() in done.stdout
    assert f"| repeats a phrase | {report['dropped']['repeated_phrase']} |" in done.stdout
    assert f"written to {tmp_path / 'new'}" in done.stdout


def test_prepare_captions_makes_the_same_of_the_karpathy_file(
    call: Callable[..., Any], call_program: Callable[..., Any], tiny_data: Path, tiny_store: Path, tmp_path: Path
) -> None:
    from xgpt_fairseq.cli import prepare_captions

    assert call("--split", "train,valid").status == 0
    new, again = tmp_path / "new", tmp_path / "again"
    done = call_program(
        prepare_captions.main, new / "captions.karpathy.json", "--vocabulary", tiny_data, "--regions", tiny_store,
        "--output", again,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    names = [f"{split}.{kind}" for split in ("train", "valid", "test")
             for kind in ("captions.bin", "captions.idx", "pairs.npy", "references.json")]  # fmt: skip
    assert all((again / name).read_bytes() == (new / name).read_bytes() for name in names)
    description, expected = (json.loads((folder / "dataset.json").read_text()) for folder in (new, again))
    assert description.pop("made_by")["made_from"] == json.loads((tiny_data / "dataset.json").read_text())["made_by"]
    expected.pop("made_by")
    assert description == expected
    assert len(DataDirectory(new).captions("valid")) == 10 + 4  # 2.1 for each of two images


def load_as_vilbert_does(path: Path, task: str) -> tuple[list[dict[str, Any]], dict[Any, list[int]]]:
    """The path of ViLBERT's loader: entries of caption and image, and for each image the numbers of its entries."""
    entries: list[dict[str, Any]] = []
    entries_of_image: dict[Any, list[int]] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            annotation = json.loads(line)
            if task == "RetrievalCOCO":
                image_id = annotation["id"]
            else:
                assert task == "RetrievalFlickr30k"
                image_id = int(annotation["img_path"].split(".")[0])
            entries_of_image[image_id] = []
            for sentence in annotation["sentences"]:
                entries_of_image[image_id].append(len(entries))
                entries.append({"caption": sentence, "image_id": image_id})
    return entries, entries_of_image


@pytest.mark.parametrize("task", ["RetrievalCOCO", "RetrievalFlickr30k"])
def test_vilbert_s_loader_reads_the_retrieval_file(call: Callable[..., Any], tmp_path: Path, task: str) -> None:
    assert call().status == 0
    entries, entries_of_image = load_as_vilbert_does(tmp_path / "new" / "retrieval.jsonline", task)
    references = DataDirectory(tmp_path / "new").references("train").captions
    expected = [(text, int(image_id)) for image_id, texts in references.items() for text in texts]
    assert [(entry["caption"], entry["image_id"]) for entry in entries] == expected
    assert {type(image_id) for image_id in entries_of_image} == {int}
    assert {image_id: len(numbers) for image_id, numbers in entries_of_image.items()} == {
        int(image_id): len(texts) for image_id, texts in references.items()
    }
    assert all(isinstance(entry["caption"], str) for entry in entries)


def test_names_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    directory = SimpleNamespace(
        manifest=SimpleNamespace(splits={"train": {}, "test": {}}),
        references=lambda split: SimpleNamespace(captions={f"{split}_1": ["a"], "12_3": ["b"], "7": ["c"]}),
    )
    added = {"train": {"train_1": ["new"], "12_3": [], "7": []}}
    assert write_retrieval(tmp_path / "r.jsonline", directory, added) == 2  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "r.jsonline").read_text().splitlines()]
    assert lines[0] == {"id": "train_1", "img_path": "train_1.jpg", "sentences": ["a", "new"]}
    assert [line["id"] for line in lines] == ["train_1", "12_3", 7]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """interrupted(n): Ctrl-C when the n-th batch is drawn."""
    stock = draw.generate_batch

    def at(number: int) -> None:
        left = iter(range(1, number))

        def generate_batch(*args: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return stock(*args, **options)

        monkeypatch.setattr(draw, "generate_batch", generate_batch)

    yield at
    monkeypatch.setattr(draw, "generate_batch", stock)


def test_an_interrupted_run_ends_as_one_that_was_not(
    call: Callable[..., Any], interrupted: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert call().status == 0
    whole = contents(tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "elsewhere")
    interrupted(3)
    done = call()
    partial = tmp_path / ".new.partial"
    assert done.status == 130 and f"the same command resumes from {partial}" in done.stderr
    assert not (tmp_path / "new").exists()
    journal = partial / "generated.jsonl"
    first = journal.read_bytes()
    assert first.count(b"\n") == 6
    journal.write_bytes(first + b'{"image_id": "1')  # half a line that was not noted yet
    monkeypatch.undo()
    other = call("--seed", 2)
    assert other.status == 1 and other.error.startswith(
        f"the unfinished run {partial} was started with other options (seed: 1 "
    )
    random = torch.random.get_rng_state()
    torch.rand(5)  # the program must not depend on it
    assert call().status == 0
    assert contents(tmp_path / "new") == whole
    assert not partial.exists()
    torch.random.set_rng_state(random)

    interrupted(2)
    assert call("--overwrite", "--seed", 2).status == 130
    assert contents(tmp_path / "new") == whole
    journal.write_bytes(b"")
    monkeypatch.undo()
    assert call("--overwrite", "--seed", 2).error == f"{journal} is truncated; delete {partial} to start over"
    assert call("--overwrite", "--seed", 3).status == 0
    assert (tmp_path / "new" / "train.references.json").read_bytes() != whole["train.references.json"]


def test_an_interrupted_run_does_not_go_on_with_other_data(
    call: Callable[..., Any], interrupted: Callable[[int], None], tiny_data: Path, tiny_store: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "regions").symlink_to(tiny_store)
    interrupted(3)
    assert call(data=data).status == 130
    references = data / "train.references.json"
    own = references.read_text(encoding="utf-8")
    references.write_text(own.replace("A red", "A RED"), encoding="utf-8")
    assert "was started with other options (captions_crc32: " in call(data=data).error
    references.write_text(own, encoding="utf-8")
    (data / "regions").unlink()
    other_features(tiny_store, data / "regions")
    assert "was started with other options (regions: " in call(data=data).error


def test_drawing_leaves_torch_s_random_numbers_alone(captioner: XGPTHubInterface, tiny_data: Path) -> None:
    directory = DataDirectory(tiny_data)
    images = draw.images_of(directory, "train", 2.0, seed=1)[:3]
    rules = draw.Rules(key=directory.vocabulary.encode, longest=39, repeat_ngram=3)
    before = torch.random.get_rng_state()
    found = [
        draw.generate_batch(
            captioner, directory.regions, images, search=SearchOptions(beam=4, sampling=True, sampling_topp=0.9),
            rules=rules, rounds=3, seed=[seed, 0],
        )
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(before, torch.random.get_rng_state())
    assert found[0] == found[1] != found[2]


def test_sampling_follows_the_model_s_probabilities(captioner: XGPTHubInterface, tiny_data: Path) -> None:
    """First subwords are drawn as often as a plain forward pass says; a small top-p leaves the likeliest alone."""
    directory = DataDirectory(tiny_data)
    row = int(directory.pairs("train")[0])
    dictionary = directory.vocabulary.dictionary
    options = SearchOptions(beam=100, sampling=True, sampling_topp=1.0, temperature=3.0, max_len_b=1)
    torch.manual_seed(0)
    found = captioner.candidates(directory.regions, [row] * 20, options)
    drawn = [directory.vocabulary.encode_list(each.text)[:1] for candidates in found for each in candidates]
    regions = {
        "features": torch.from_numpy(np.array(directory.regions.features(row)))[None],
        "boxes": torch.from_numpy(np.array(directory.regions.boxes(row)))[None],
        "padding_mask": torch.zeros(1, len(directory.regions.boxes(row)), dtype=torch.bool),
    }
    with torch.no_grad():
        logits, _ = captioner.model(**regions, prev_output_tokens=torch.tensor([[dictionary.eos()]]))
    never = [dictionary.index(symbol) for symbol in directory.vocabulary.suppressed_symbols]
    logits[0, 0, [dictionary.pad(), dictionary.eos(), *never]] = -torch.inf
    likely = (logits[0, 0] / 3.0).softmax(-1)
    article = dictionary.index("a")
    share = sum(ids == [article] for ids in drawn) / len(drawn)
    assert len(drawn) == 2000 and 0.1 < share < 0.9
    assert share == pytest.approx(float(likely[article]), abs=0.04)  # four standard deviations
    [greedy] = captioner.candidates(directory.regions, [row], SearchOptions(beam=20, sampling=True, sampling_topp=1e-6))
    assert len({candidate.text for candidate in greedy}) == 1


def test_diverse_beams(call: Callable[..., Any], tmp_path: Path) -> None:
    options = ("--diverse-beam-groups", 4, "--candidates", 8, "--diverse-beam-strength", 1.0)
    assert call(*options).status == 0
    first = contents(tmp_path / "new")
    report = json.loads(first["augmentation.json"])
    assert report["counts"]["drawn"] == 8 * TRAIN_IMAGES and report["counts"]["generated"] > 0
    assert report["options"]["diverse_beam_groups"] == 4 and "temperature" not in report["options"]
    assert call(*options, "--overwrite", "--seed", 9).status == 0
    second = karpathy(tmp_path / "new")
    for image in json.loads(first["captions.karpathy.json"])["images"]:
        texts = {s["raw"] for s in image["sentences"]}
        other = {s["raw"] for s in second[str(image["cocoid"])]["sentences"]}
        assert texts <= other or other <= texts  # a search finds the same; the seed says only which image gets a third


def test_what_is_short_is_said(call: Callable[..., Any], tmp_path: Path) -> None:
    """The likeliest caption alone is drawn, again and again: one new caption an image at most."""
    done = call("--sampling-topp", "1e-6", "--candidates", 3, "--rounds", 2, "--per-image", 2)
    assert done.status == 0
    report = json.loads((tmp_path / "new" / "augmentation.json").read_text())
    counts = report["counts"]
    assert counts["drawn"] == 2 * 3 * TRAIN_IMAGES and counts["missing"] == 2 * TRAIN_IMAGES - counts["generated"]
    assert counts["images_short"] == TRAIN_IMAGES
    assert sum(report["dropped"].values()) == counts["drawn"] - counts["generated"]
    assert f"{counts['missing']} captions are missing, of 8 images." in done.stdout


def test_a_checkpoint_captions_as_its_bundle_does(
    call: Callable[..., Any], call_program: Callable[..., Any], captioner: XGPTHubInterface, tiny_data: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    assert call().status == 0
    config = Namespace(**vars(captioner.config))
    torch.save({"model": captioner.model.state_dict(), "cfg": {"model": config, "task": {}}}, tmp_path / "model.pt")
    done = call_program(
        program.main, tiny_data, "--path", tmp_path / "model.pt", "--output", tmp_path / "other", "--batch-size", 3,
        "--device", "cpu",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    name = "captions.karpathy.json"
    assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--per-image", 0), "--per-image must be above 0, got 0"),
        (("--per-image", "nan"), "--per-image must be above 0, got nan"),
        (("--sampling-topp", 1.5), "--sampling-topp must be above 0 and at most 1, got 1.5"),
        (("--temperature", 0), "--temperature must be above 0, got 0"),
        (("--candidates", 0), "--candidates must be at least 1, got 0"),
        (("--repeat-ngram", -1), "--repeat-ngram must be at least 0, got -1"),
        (("--seed", -1), "--seed must be at least 0, got -1"),
        (("--diverse-beam-groups", 2), "--candidates 5 must be a multiple of --diverse-beam-groups 2"),
        (("--diverse-beam-groups", 5, "--temperature", 1), "--diverse-beam-groups searches, --sampling-topp and"),
        (("--diverse-beam-groups", 5, "--rounds", 2), "--rounds 2: diverse beam search finds the same again"),
        (("--diverse-beam-strength", 1), "--diverse-beam-strength needs --diverse-beam-groups"),
        (("--split", "train,dev"), "has no captions for split 'dev'; it has: train, valid, test"),
        (("--split", "train,train"), "--split train,train: a split is named twice"),
    ],
)
def test_options_that_make_no_sense(
    call: Callable[..., Any], tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    done = call(*options)
    assert done.status == 1 and message in done.error
    assert not list(tmp_path.iterdir())


def test_what_must_not_be_replaced_or_augmented(
    call: Callable[..., Any], call_program: Callable[..., Any], tiny_data: Path, bundle: Path, tmp_path: Path
) -> None:
    assert call("--per-image", 1).status == 0
    again = call()
    assert again.status == 1 and again.error == f"{tmp_path / 'new'} exists; pass --overwrite to replace it"
    own = call_program(program.main, tiny_data, "--path", bundle, "--output", tiny_data, "--overwrite")
    assert own.status == 1 and "is DATA itself" in own.error
    twice = call_program(program.main, tmp_path / "new", "--path", bundle, "--output", tmp_path / "newer")
    assert twice.status == 1 and "was made by xgpt-augment and has generated captions" in twice.error


def test_help_has_an_example(call_program: Callable[..., Any]) -> None:
    done = call_program(program.main, "--help")
    assert done.status == 0 and "xgpt-augment data/flickr30k --path" in done.stdout
