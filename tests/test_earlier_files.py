"""What an earlier version wrote opens today, and means the same. See `earlier_files/README.md`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fairseq.data import data_utils

from tests.end_to_end.programs import PLUGIN, run, train
from xgpt_fairseq.cli import caption
from xgpt_fairseq.data.directory import DataDirectory, TextDirectory
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.text.vocabulary import Vocabulary

FILES = Path(__file__).parent / "earlier_files"
SIZES = ["--layers", "1", "--hidden-size", "16", "--ffn-size", "32", "--attention-heads", "2"]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((FILES / "expected.json").read_text())


@pytest.fixture(scope="module")
def sentences() -> dict[str, list[str]]:
    """Split → the captions that were prepared, as their dictionary has them: lower case."""
    images = json.loads((FILES / "captions.json").read_text())["images"]
    found: dict[str, list[str]] = {}
    for image in images:
        split = {"val": "valid"}.get(image["split"], image["split"])
        found.setdefault(split, []).extend(sentence["raw"].lower() for sentence in image["sentences"])
    return found


def test_a_region_store(expected: dict[str, Any]) -> None:
    store = RegionStore(FILES / "regions")
    verify(FILES / "regions")
    rows = {store.image_id(row): store.features(row).tolist() for row in range(len(store))}
    assert rows == expected["features"]
    assert store.size(0) == (64, 48)


def test_a_directory_of_captions(sentences: dict[str, list[str]]) -> None:
    data = DataDirectory(FILES / "captions")
    dictionary, vocabulary = data.vocabulary.dictionary, data.vocabulary
    for split, texts in sentences.items():
        captions = [data.captions(split)[index] for index in range(len(data.captions(split)))]
        assert [vocabulary.decode(dictionary.string(caption)) for caption in captions] == texts
        ids = [data.regions.image_id(int(row)) for row in data.pairs(split)]
        assert list(dict.fromkeys(ids)) == list(data.references(split).captions)


def test_a_directory_of_text(sentences: dict[str, list[str]]) -> None:
    data = TextDirectory(FILES / "text")
    dictionary, vocabulary = data.vocabulary.dictionary, data.vocabulary
    found = []
    for split in ("train", "valid"):
        tokens = data_utils.load_indexed_dataset(str(FILES / "text" / f"{split}.text"), dictionary)
        found += [vocabulary.decode(dictionary.string(tokens[index])) for index in range(len(tokens))]
    assert sorted(found) == sorted(text for texts in sentences.values() for text in texts)


def test_a_vocabulary() -> None:
    text = "there is a red cat on the table."
    vocabulary = Vocabulary(FILES / "vocabulary")
    assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize("model", ["bundle", "xgpt_caption.pt"])
def test_captions_of_a_model(
    model: str, expected: dict[str, Any], call_program: Callable[..., Any], tmp_path: Path
) -> None:
    options = ["--data", FILES / "captions"] if model.endswith(".pt") else []
    done = call_program(
        caption.main, FILES / "regions", "--path", FILES / model, "--json", tmp_path / "captions.json", *options
    )
    assert done.status == 0, done.stderr
    records = json.loads((tmp_path / "captions.json").read_text())
    assert {record["image_id"]: record["caption"] for record in records} == expected["captions"]


@pytest.mark.parametrize(("task", "stage"), [("xgpt_pretrain", "pre-training"), ("xgpt_caption", "captions")])
def test_losses_of_a_checkpoint(task: str, stage: str, expected: dict[str, Any]) -> None:
    done = run(
        "fairseq-validate", FILES / "captions", "--user-dir", PLUGIN, "--task", task, "--path", FILES / f"{task}.pt",
        "--batch-size", "2", "--cpu", "--log-format", "json",
    )  # fmt: skip
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if '"valid_nll_loss"' in line]
    record = json.loads(line[line.index("{") :])
    values = dict(expected["validation"][stage])
    if stage == "pre-training":
        # CHANGELOG.md: TIFG is a mean over dimensions (16 here), and a checkpoint of before learns IDA anew
        values["valid_tifg_mse"] = f"{float(values['valid_tifg_mse']) / 16:.3f}"
        del values["valid_ida_nll_loss"]
    assert {name: record[name] for name in values} == values


def test_a_training_starts_from_a_checkpoint(tmp_path: Path) -> None:
    log = train(
        FILES / "captions", tmp_path, *SIZES, "--finetune-from-model", FILES / "xgpt_pretrain.pt", "--max-update", "1"
    ).stdout
    assert "parameters new: 0 (none)" in log
