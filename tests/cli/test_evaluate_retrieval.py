"""`xgpt-evaluate --retrieval`: scores of a pool, what is resumed, what is refused."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.stores import other_features
from xgpt_fairseq.cli import evaluate_retrieval
from xgpt_fairseq.cli.evaluate import main
from xgpt_fairseq.data.caption_dataset import load_regions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import build_objectives
from xgpt_fairseq.precision import cpu_has_bfloat16
from xgpt_fairseq.retrieval.recall import caption_retrieval, image_retrieval
from xgpt_fairseq.retrieval.scoring import PoolScorer, load_model, read_pool, read_scores

Call = Callable[..., Any]


def write_checkpoint(path: Path, data: Path, *, matching: bool = True, **options: Any) -> Path:
    """A model with random weights, as fairseq-train would save it."""
    torch.manual_seed(0)
    directory = DataDirectory(data)
    config = {"layers": 2, "hidden_size": 16, "ffn_size": 32, "attention_heads": 2, **options}
    dictionary = directory.vocabulary.dictionary
    heads = build_objectives(["matching"] if matching else [], dictionary)
    task = SimpleNamespace(target_dictionary=dictionary, objectives=heads)
    model = XGPTModel.build_model(XGPTConfig(**{"feature_dim": directory.regions.feature_dim, **config}), task)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:  # or all pairs would have nearly the same score
                parameter.normal_(0, 0.3)
    cfg = {"model": Namespace(**config), "task": Namespace(data=str(data))}
    torch.save({"cfg": cfg, "model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "retrieval.pt", tiny_data)


def one_by_one(checkpoint: Path, data: Path, splits: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Each pair alone through the model; the pairs' places; image ids."""
    directory = DataDirectory(data)
    model = load_model(checkpoint, directory)
    pool = read_pool(directory, splits, longest=60)
    scores = np.empty((len(pool.captions), len(pool.image_rows)), dtype=np.float32)
    with torch.no_grad():
        for c, tokens in enumerate(pool.captions):
            for i, row in enumerate(pool.image_rows):
                images = load_regions(directory.regions, np.array([row]))
                scores[c, i] = model("matching", **images, src_tokens=torch.from_numpy(tokens)[None])
    return scores, pool.image_of_caption, pool.image_ids


def test_a_pool_of_two_splits(call_program: Call, checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    output, folder = tmp_path / "recall.json", tmp_path / "scores"
    command = ["--retrieval", "--path", checkpoint, "--data", tiny_data, "--splits", "valid,test", "--device", "cpu"]
    files = ["--output", output, "--save-scores", folder]
    done = call_program(main, *command, *files, "--batch-size", "7")
    assert done.status == 0, done.stderr
    expected, image_of_caption, image_ids = one_by_one(checkpoint, tiny_data, ["valid", "test"])
    assert np.ptp(expected) > 0.1
    matrix, column, images = read_scores(folder)
    assert images == image_ids and column.tolist() == image_of_caption.tolist()
    assert matrix == pytest.approx(expected, abs=1e-5)

    report = json.loads(output.read_text())
    assert report["splits"] == ["valid", "test"] and report["checkpoint"] == str(checkpoint)
    for name, retrieve in (("image_retrieval", image_retrieval), ("caption_retrieval", caption_retrieval)):
        found = retrieve(matrix, column)
        assert report[name]["R@1"] == found.at[1] and report[name]["median_rank"] == found.median_rank
        assert report[name]["chance"]["R@1"] == pytest.approx(1 / len(images))
    table = done.stdout.splitlines()
    assert table[0].startswith(f"{len(matrix)} captions, {len(images)} images;")
    assert table[2].split()[:3] == ["image", "retrieval", f"{100 * report['image_retrieval']['R@1']:.1f}"]

    # the scores alone say the same
    again = call_program(main, "--retrieval", "--from-scores", folder)
    assert again.stdout == done.stdout
    by_its_old_name = call_program(main, "--retrieval", "--scores", folder)
    assert by_its_old_name.stdout == done.stdout
    assert by_its_old_name.stderr == "--scores is called --from-scores now\n"
    refused = call_program(main, *command, *files)
    assert refused.error == f"{output} exists; give another name or --overwrite"
    refused = call_program(main, *command, "--save-scores", folder)
    assert refused.error == f"{folder} exists; give another name or --overwrite"
    assert call_program(main, *command, *files, "--overwrite").status == 0


def test_what_is_interrupted_goes_on(
    call_program: Call, checkpoint: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    score = PoolScorer.score

    def interrupted(self: PoolScorer, block: int) -> Any:
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(block)
        return score(self, block)

    monkeypatch.setattr(evaluate_retrieval, "SAVE_PAIRS", 1)
    command = ["--retrieval", "--path", checkpoint, "--data", tiny_data, "--splits", "valid", "--batch-size", "4"]
    output = ["--save-scores", tmp_path / "scores", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(PoolScorer, "score", interrupted)
        assert call_program(main, *command, *output).status == 130
    assert not (tmp_path / "scores").exists()
    other = call_program(main, *command, *output, "--batch-size", "5")
    assert "was started with other options (batch_size: 4 then, 5 now)" in other.error
    regions = other_features(DataDirectory(tiny_data).regions.path, tmp_path / "regions")
    other = call_program(main, *command, *output, "--regions", regions)
    assert "was started with other options (regions: " in other.error

    def noted(self: PoolScorer, block: int) -> Any:
        scored.append(block)
        return score(self, block)

    monkeypatch.setattr(PoolScorer, "score", noted)
    assert call_program(main, *command, *output).status == 0
    assert scored == list(range(len(scored))) and len(scored) > 4  # each block once
    expected, *_ = one_by_one(checkpoint, tiny_data, ["valid"])
    assert read_scores(tmp_path / "scores")[0] == pytest.approx(expected, abs=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] in ([], [".scores.partial"])


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 arithmetic")
def test_bfloat16_is_near_float32(call_program: Call, checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    command = ["--retrieval", "--path", checkpoint, "--data", tiny_data, "--device", "cpu", "--cpu-bf16"]
    assert call_program(main, *command, "--save-scores", tmp_path / "scores").status == 0
    expected, *_ = one_by_one(checkpoint, tiny_data, ["test"])
    difference = np.abs(read_scores(tmp_path / "scores")[0] - expected)
    assert 0 < difference.max() < 0.1 * np.ptp(expected)


def test_long_captions_are_cut(call_program: Call, tiny_data: Path, tmp_path: Path) -> None:
    short = write_checkpoint(tmp_path / "short.pt", tiny_data, max_target_positions=6)
    done = call_program(main, "--retrieval", "--path", short, "--data", tiny_data, "--device", "cpu")
    assert done.status == 0 and "captions exceed the model's limit, and were truncated" in done.stderr
    pool = read_pool(DataDirectory(tiny_data), ["test"], longest=6)
    assert max(map(len, pool.captions)) == 6 and {int(tokens[-1]) for tokens in pool.captions} == {2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--retrieval"], "--retrieval needs --path CHECKPOINT and --data DATA, or --from-scores FOLDER alone"),
        (["--retrieval", "--path", "x", "--from-scores", "y"], "--retrieval needs --path"),
        (["--retrieval", "--path", "x"], "--path needs the data directory: --data DATA"),
        (["--retrieval", "--from-scores", "x", "--data", "y"], "--data has no effect with --from-scores"),
        (
            ["--retrieval", "--scores", "x", "--splits", "valid", "--regions", "r", "--fp16", "--batch-size", "8"],
            "--regions, --splits, --batch-size, --fp16 have no effect with --from-scores",
        ),
        (["--retrieval", "captions.txt", "--from-scores", "x"], "CAPTIONS has no effect with --retrieval"),
        (
            ["--retrieval", "--path", "x", "--data", "y", "--metrics", "bleu", "--segment", "char", "--spice-jars", "z",
             "--hold-out", "val=0.1", "--pair-by", "id", "--split", "test", "--coco-results", "r.json"],
            "--split, --hold-out, --pair-by, --metrics, --segment, --coco-results, --spice-jars have no effect with "
            "--retrieval",
        ),
        (
            ["captions.txt", "--references", "x", "--save-scores", "s", "--data", "d", "--path", "p", "--fp16"],
            "--path, --data, --save-scores, --fp16 have no effect without --retrieval",
        ),
        (
            ["captions.txt", "--references", "x", "--splits", "val"],
            "--splits has no effect without --retrieval: --split says which images of the references are scored",
        ),
        (["captions.txt"], "--references is missing: xgpt-evaluate CAPTIONS --references FILE, or --retrieval"),
        (["--references", "x"], "CAPTIONS is missing"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(call_program: Call, arguments: list[str], message: str) -> None:
    assert call_program(main, *arguments).error.startswith(message)


def test_all_options_of_retrieval_are_known_as_such() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    evaluate_retrieval.add_options(parser)
    assert set(evaluate_retrieval.RETRIEVAL) == {action.dest for action in parser._actions}


def test_what_cannot_be_scored(call_program: Call, checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    captioner = write_checkpoint(tmp_path / "captioner.pt", tiny_data, matching=False)
    command = ["--retrieval", "--data", tiny_data, "--device", "cpu", "--path"]
    refused = call_program(main, *command, captioner)
    assert refused.error.startswith(
        f"{captioner}: the checkpoint has no matching head, since it was not trained for that"
    )
    assert "split 'dev'; it has: " in call_program(main, *command, checkpoint, "--splits", "dev").error
    assert call_program(main, *command, checkpoint, "--splits", "test,test").error == (
        "--splits test,test: a split is named twice"
    )
    assert call_program(main, *command, checkpoint, "--batch-size", "0").error == (
        "--batch-size must be at least 1, got 0"
    )
    for precision in ("--fp16", "--bf16"):
        refused = call_program(main, *command, checkpoint, precision)
        assert refused.error == f"{precision} needs a GPU; on a CPU: --cpu-bf16"
    refused = call_program(main, *command, checkpoint, "--fp16", "--cpu-bf16")
    assert refused.error == "one precision at a time: --fp16, --cpu-bf16"
    refused = call_program(main, *command, checkpoint, "--save-scores", tmp_path / "s", "--output", tmp_path / "s")
    assert refused.error == f"{tmp_path / 's'} is named twice: --output is a file, --save-scores a folder"
    output = tmp_path / "no" / "folder"
    assert (
        call_program(main, *command, checkpoint, "--save-scores", output).error
        == f"{output}: no folder {tmp_path / 'no'}"
    )


def write_scores(folder: Path, scores: Any, ids: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "scores.npy", scores)
    (folder / "ids.json").write_text(json.dumps(ids))
    return folder


def test_scores_of_another_model(call_program: Call, tmp_path: Path) -> None:
    ids = {"captions": ["COCO_val2014_000000000042", 7, 7], "images": [7, 42]}
    folder = write_scores(tmp_path / "s", np.array([[0, 2], [1, 0], [0, 1]]), ids)
    done = call_program(main, "--retrieval", "--from-scores", folder)
    table = [line.split() for line in done.stdout.splitlines()[2::2]]
    # caption 1 of image 7 is taken for one of 42; the best captions are right ones in one of two orders for 7
    assert table[0][2:] == ["66.7", "100.0", "100.0", "1.0"] and table[1][2:] == ["100.0", "100.0", "100.0", "1.0"]


@pytest.mark.parametrize(
    ("scores", "ids", "message"),
    [
        (np.zeros((2, 2)), {"captions": [1, 2]}, "ids.json is not {"),
        (np.zeros((2, 2)), {"captions": [1, 3], "images": [1, 2]}, 'image 3 of a caption is not among "images"'),
        (np.zeros((2, 2)), {"captions": [1, 2], "images": [1, 1]}, 'an image occurs twice in "images"'),
        (np.zeros((2, 3)), {"captions": [1, 2], "images": [1, 2]}, "has shape (2, 3) and type float64"),
        (np.array(["a", "b"]), {"captions": [1, 2], "images": [1, 2]}, "and type <U1"),
        (np.array([[1, np.nan]]), {"captions": [1], "images": [1, 2]}, "caption 0 and image 1 is not a finite number"),
    ],
)  # fmt: skip
def test_damaged_scores_are_refused(call_program: Call, tmp_path: Path, scores: Any, ids: Any, message: str) -> None:
    folder = write_scores(tmp_path / "s", scores, ids)
    assert message in call_program(main, "--retrieval", "--from-scores", folder).error
    (folder / "ids.json").unlink()
    assert "ids.json: cannot be read" in call_program(main, "--retrieval", "--from-scores", folder).error
