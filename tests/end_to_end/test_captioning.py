"""From files on disk to scored captions, through fairseq's own programs."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.end_to_end.programs import PLUGIN, generate, generated, logged, preprocess, run, train
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.precision import cpu_has_bfloat16


@pytest.fixture(scope="module")
def run_folder(tiny_data: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A short training run with validation by captions: `checkpoints/` and `train.log`."""

    def make(folder: Path) -> None:
        result = train(
            tiny_data, folder / "checkpoints", "--max-epoch", "4", "--eval-captions", "--keep-best-checkpoints", "4",
            "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric", "--captions-per-image", "3",
            "--tensorboard-logdir", folder / "tensorboard",
        )  # fmt: skip
        (folder / "train.log").write_text(result.stdout)

    return once("captioning", make)


def test_loss_falls_and_validation_logs_cider_and_bleu(run_folder):
    log = (run_folder / "train.log").read_text()
    losses = logged(log, "loss")
    assert losses[-1] < losses[0]
    assert len(logged(log, "cider", "valid")) == len(logged(log, "bleu4", "valid")) == 4
    assert "best_cider" in log
    assert list((run_folder / "tensorboard").rglob("*tfevents*"))


def test_each_of_four_validations_is_among_the_best_four(run_folder):
    kept = (run_folder / "checkpoints").glob("checkpoint.best_cider_*.pt")
    assert len({load_checkpoint(file)["optimizer_history"][-1]["num_updates"] for file in kept}) == 4


def test_checkpoints_hold_plain_values_only(run_folder):
    state = load_checkpoint(run_folder / "checkpoints" / "checkpoint_last.pt")
    assert type(state["extra_state"]["val_loss"]) is float
    assert state["cfg"]["model"]["hidden_size"] == 64  # the sizes that were used, not None


def test_average_generate_evaluate_and_train_on(run_folder, tiny_data, tmp_path):
    averaged = tmp_path / "averaged.pt"
    run("xgpt-average-checkpoints", "--checkpoints", run_folder / "checkpoints", "--best", "3", "--output", averaged)
    generate(tiny_data, averaged, tmp_path, "--gen-subset", "test", "--beam", "2")
    references = json.loads((tiny_data / "test.references.json").read_text())
    captions = generated(tmp_path)
    assert sorted(captions) == list(range(len(references["images"])))

    scores, results = tmp_path / "scores.json", tmp_path / "results.json"
    shown = run(
        "xgpt-evaluate", tmp_path / "generate-test.txt", "--references", tiny_data / "test.references.json",
        "--metrics", "bleu,rouge,cider,spice", "--output", scores, "--coco-results", results,
    )  # fmt: skip
    assert "CIDEr" in shown.stdout
    uploaded = json.loads(results.read_text())
    assert [record["image_id"] for record in uploaded] == [image["id"] for image in references["images"]]
    assert [record["caption"] for record in uploaded] == [captions[i][0] for i in range(len(uploaded))]
    run("xgpt-evaluate", results, "--references", tiny_data / "test.references.json", "--metrics", "cider")

    tuned = train(tiny_data, tmp_path / "tuned", "--finetune-from-model", averaged, "--max-update", "1")
    assert "loading pretrained model" in tuned.stdout
    assert logged(tuned.stdout, "loss")[0] < logged((run_folder / "train.log").read_text(), "loss")[0] - 0.5
    restored = train(
        tiny_data, tmp_path / "restored", "--restore-file", averaged, "--reset-optimizer", "--reset-dataloader",
        "--reset-meters", "--reset-lr-scheduler", "--max-update", "1",
    )  # fmt: skip
    assert "Loaded checkpoint" in restored.stdout


def test_online_scores_equal_those_of_xgpt_evaluate(run_folder, tiny_data, tmp_path):
    """The cider of the log is what xgpt-evaluate gives for greedy captions of the same checkpoint."""
    last = run_folder / "checkpoints" / "checkpoint_last.pt"
    generate(tiny_data, last, tmp_path, "--gen-subset", "valid", "--beam", "1")
    run(
        "xgpt-evaluate", tmp_path / "generate-valid.txt", "--references", tiny_data / "valid.references.json",
        "--metrics", "bleu,cider", "--output", tmp_path / "scores.json",
    )  # fmt: skip
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    log = (run_folder / "train.log").read_text()
    assert logged(log, "cider", "valid")[-1] == pytest.approx(scores["CIDEr"], abs=1e-4)
    assert logged(log, "bleu4", "valid")[-1] == pytest.approx(scores["BLEU@4"], abs=1e-4)


@pytest.mark.thorough
def test_the_metrics_of_default_by_the_program(run_folder, tiny_data, tmp_path):
    """METEOR's program takes ten seconds to start; `tests/metrics/test_scores.py` starts it, too."""
    generate(tiny_data, run_folder / "checkpoints" / "checkpoint_last.pt", tmp_path, "--gen-subset", "test")
    shown = run("xgpt-evaluate", tmp_path / "generate-test.txt", "--references", tiny_data / "test.references.json")
    for name in ("BLEU@1", "BLEU@4", "METEOR", "ROUGE-L", "CIDEr"):  # SPICE needs files of its own
        assert name in shown.stdout


SEARCHES = {
    "top-p sampling": ["--beam", "3", "--nbest", "3", "--sampling", "--sampling-topp", "0.9"],
    "top-k sampling": ["--beam", "3", "--nbest", "3", "--sampling", "--sampling-topk", "5", "--temperature", "0.7"],
    "diverse beam": ["--beam", "4", "--nbest", "2", "--diverse-beam-groups", "2"],
    "diverse siblings": ["--beam", "3", "--diversity-rate", "0.5"],
    "length": ["--beam", "3", "--max-len-b", "6", "--min-len", "4", "--lenpen", "1.5"],
    "prefix": ["--beam", "2", "--prefix-size", "1"],
    "score the references": ["--score-reference"],
}


THOROUGH = ("top-k sampling",)  # fairseq's class is that of top-p


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(a, id=n, marks=pytest.mark.thorough if n in THOROUGH else ()) for n, a in SEARCHES.items()],
)
def test_every_search_of_fairseq_works(run_folder, tiny_data, tmp_path, arguments):
    generate(tiny_data, run_folder / "checkpoints" / "checkpoint_last.pt", tmp_path, *arguments)
    captions = generated(tmp_path)
    images = len(json.loads((tiny_data / "test.references.json").read_text())["images"])
    assert len(captions) == images
    wanted = int(arguments[arguments.index("--nbest") + 1]) if "--nbest" in arguments else 1
    assert all(len(hypotheses) == wanted for hypotheses in captions.values())
    if "--max-len-b" in arguments:
        assert all(4 <= len(tokens[0].split()) <= 6 for tokens in generated(tmp_path, kind="H").values())


def test_ngram_blocking_leaves_no_repeated_bigram(run_folder, tiny_data, tmp_path):
    # a checkpoint this young says the same few words again and again
    last = run_folder / "checkpoints" / "checkpoint_last.pt"

    def repeated(folder: Path, *arguments: str) -> int:
        generate(tiny_data, last, folder, "--beam", "2", "--min-len", "12", *arguments)
        count = 0
        for (tokens,) in generated(folder, kind="H").values():
            words = tokens.split()
            pairs = list(itertools.pairwise(words))
            count += len(pairs) - len(set(pairs))
        return count

    assert repeated(tmp_path / "free") > 0
    assert repeated(tmp_path / "blocked", "--no-repeat-ngram-size", "2") == 0


def test_constraints_appear_in_the_captions(run_folder, tiny_data, tmp_path):
    references = json.loads((tiny_data / "test.references.json").read_text())
    image = references["images"][0]["id"]
    phrase = " ".join(references["annotations"][-1]["caption"].lower().rstrip(".").split()[-2:])
    constraints = tmp_path / "constraints.tsv"
    constraints.write_text(f"{image}\t{phrase}\n")
    last = run_folder / "checkpoints" / "checkpoint_last.pt"
    generate(tiny_data, last, tmp_path, "--beam", "4", "--constraints", "--constraints-file", constraints)
    assert phrase in generated(tmp_path)[0][0]
    refused = generate(tiny_data, last, tmp_path, "--constraints", check=False)
    assert refused.returncode != 0 and "--constraints needs --constraints-file FILE" in refused.stderr


def test_hydra_trains_from_yaml(tiny_data, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        f"""# @package _global_
common: {{cpu: true, user_dir: {PLUGIN}, log_format: simple, log_interval: 1}}
task: {{_name: xgpt_caption, data: {tiny_data}}}
model: {{_name: xgpt_tiny, hidden_size: 32, attention_heads: 4, ffn_size: 64}}
criterion: {{_name: xgpt, label_smoothing: 0.1}}
dataset: {{batch_size: 8}}
optimizer: {{_name: adam, adam_betas: "(0.9,0.98)"}}
lr_scheduler: {{_name: inverse_sqrt, warmup_updates: 10}}
optimization: {{max_update: 2, lr: [0.0001], clip_norm: 5}}
checkpoint: {{save_dir: {tmp_path / "checkpoints"}}}
"""
    )
    run("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "recipe", cwd=tmp_path)
    model = load_checkpoint(tmp_path / "checkpoints" / "checkpoint_last.pt")["cfg"]["model"]
    assert (model["layers"], model["hidden_size"]) == (6, 32)  # the architecture's, and the file's


def test_two_runs_of_one_seed_are_equal_and_workers_change_nothing(tiny_data, tmp_path):
    for name, workers in (("a", "0"), ("b", "2")):
        train(tiny_data, tmp_path / name, "--max-update", "3", "--num-workers", workers, "--seed", "5")
    a, b = (load_checkpoint(tmp_path / name / "checkpoint_last.pt")["model"] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.thorough
def test_what_is_wrong_with_the_data_is_said_before_training(tiny_data, tmp_path):
    """The rules are tested by themselves, and the way to the terminal in `test_mistakes.py`."""
    cider = ["--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric"]
    metric = train(tiny_data, tmp_path / "checkpoints", *cider, check=False)
    assert metric.returncode != 0 and metric.stderr.endswith("needs --eval-captions\n")
    long = train(tiny_data, tmp_path / "checkpoints", "--max-target-positions", "3", check=False)
    assert long.returncode != 0 and "longer than the model's --max-target-positions" in long.stderr
    store = train(tiny_data, tmp_path / "checkpoints", "--regions", tmp_path / "nowhere", check=False)
    assert store.returncode != 0 and "name it by --regions STORE" in store.stderr


def test_a_checkpoint_of_another_dictionary_or_width_is_refused(
    run_folder, tiny_captions, tiny_vocabulary, write_store, tmp_path
):
    """By fairseq-train and fairseq-generate, in one line that says why."""
    last = run_folder / "checkpoints" / "checkpoint_last.pt"
    store = write_store(tmp_path / "wide.regions", feature_dim=24)
    preprocess("learn_bpe.py", "--input", tiny_captions, "--output", tmp_path / "v", "--symbols", "30")
    preprocess("prepare_captions.py", tiny_captions, "--vocabulary", tmp_path / "v", "--regions", store,
               "--output", tmp_path / "words")  # fmt: skip
    preprocess("prepare_captions.py", tiny_captions, "--vocabulary", tiny_vocabulary, "--regions", store,
               "--output", tmp_path / "wide")  # fmt: skip
    width = "trained on region features of width 16, the region store has width 24"
    for data, message in (("words", "is not the dictionary of the checkpoint"), ("wide", width)):
        trained = train(tmp_path / data, tmp_path / "c", "--finetune-from-model", last, check=False)
        assert trained.returncode != 0
        assert message in trained.stderr.splitlines()[-1]
        assert generate(tmp_path / data, last, tmp_path, check=False).returncode != 0


def test_ensembles_validation_and_max_tokens(run_folder, tiny_data, tmp_path):
    first, second = (run_folder / "checkpoints" / f"checkpoint{epoch}.pt" for epoch in (3, 4))
    generate(tiny_data, f"{first}:{second}", tmp_path, "--beam", "2")
    assert generated(tmp_path)
    valid = run("fairseq-validate", tiny_data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", second,
                "--batch-size", "4", "--cpu", "--valid-subset", "test")  # fmt: skip
    assert "nll_loss" in valid.stdout + valid.stderr
    log = train(
        tiny_data, tmp_path / "c", "--max-tokens", "200", "--max-tokens-valid", "400", "--max-epoch", "1"
    ).stdout
    assert logged(log, "loss")


def test_batches_are_drawn_anew_in_every_epoch(tiny_data):
    """By the task's own iterator, and the same again for the same seed and epoch."""
    from xgpt_fairseq.tasks.xgpt_caption import XGPTCaptionConfig, XGPTCaptionTask

    cfg = XGPTCaptionConfig(data=str(tiny_data), seed=1, update_freq=1, train_subset="train",
                            best_checkpoint_metric="loss")  # fmt: skip

    def epochs(shard: int = 0, shards: int = 1) -> list[list[frozenset[int]]]:
        task = XGPTCaptionTask.setup_task(cfg)
        task.load_dataset("train", epoch=1)
        found = []
        for epoch in (1, 2):
            iterator = task.get_batch_iterator(
                task.dataset("train"), max_sentences=4, num_shards=shards, shard_id=shard, epoch=epoch
            )
            found.append([frozenset(batch["id"].tolist()) for batch in iterator.next_epoch_itr()])
        return found

    first, second = epochs()
    assert [first, second] == epochs()
    assert set(first) != set(second)  # not only in another order
    assert sorted(i for batch in first for i in batch) == sorted(i for batch in second for i in batch)
    shards = [epochs(shard, 2)[0] for shard in (0, 1)]
    items = [i for shard in shards for batch in shard for i in batch]
    assert sorted(items) == sorted(i for batch in first for i in batch)


def test_a_checkpoint_that_holds_code_is_refused(run_folder, tiny_data, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "created by the payload"),)

    state = load_checkpoint(run_folder / "checkpoints" / "checkpoint_last.pt")
    torch.save({**state, "extra_state": Payload()}, tmp_path / "evil.pt")
    for program in (
        lambda: generate(tiny_data, tmp_path / "evil.pt", tmp_path, check=False),
        lambda: train(tiny_data, tmp_path / "c", "--finetune-from-model", tmp_path / "evil.pt", check=False),
        lambda: run("xgpt-average-checkpoints", "--inputs", tmp_path / "evil.pt", "--output", tmp_path / "o.pt",
                    check=False),
    ):  # fmt: skip
        result = program()
        assert result.returncode != 0
        assert "mkdir" in result.stderr
    assert not (tmp_path / "created by the payload").exists()


def test_ten_photos_are_memorised(coco_mini, tmp_path):
    """Overfitting: beam 2 gives back the training captions word for word."""
    source = json.loads((coco_mini / "dataset_coco_mini.json").read_text())
    images = source["images"][:10]
    for image in images:
        image["sentences"] = image["sentences"][:1]
        image["split"] = "train"
    (tmp_path / "ten.json").write_text(json.dumps({"images": images}))
    # the eight most confident regions of each are enough to tell them apart
    preprocess("import_regions.py", coco_mini, "--output", tmp_path / "regions", "--max-regions", "8",
               "--sizes", coco_mini / "dataset_coco_mini.json")  # fmt: skip
    # Dropout stays on: fairseq's search ends with the second finished hypothesis, and without dropout the second beam
    # of so sure a model is noise that may end before the first beam does.
    preprocess("learn_bpe.py", "--input", coco_mini / "dataset_coco_mini.json", "--output", tmp_path / "vocabulary",
               "--symbols", "1000")  # fmt: skip
    preprocess("prepare_captions.py", tmp_path / "ten.json", "--vocabulary", tmp_path / "vocabulary", "--regions",
               tmp_path / "regions", "--output", tmp_path / "data", "--splits", "train")  # fmt: skip
    train(
        tmp_path / "data", tmp_path / "checkpoints", "--hidden-size", "96", "--ffn-size", "192",
        "--dropout", "0.2", "--batch-size", "10", "--max-update", "90", "--clip-norm", "1",
        "--adam-betas", "(0.9, 0.98)", "--lr", "4e-3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "30",
        "--disable-validation", "--no-epoch-checkpoints", "--save-interval", "1000",
    )  # fmt: skip
    last = tmp_path / "checkpoints" / "checkpoint_last.pt"
    generate(tmp_path / "data", last, tmp_path, "--gen-subset", "train", "--beam", "2")
    captions = [hypotheses[0] for _, hypotheses in sorted(generated(tmp_path, "train").items())]
    words = [" ".join(image["sentences"][0]["raw"].lower().split()) for image in images]
    assert captions == words


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 arithmetic")
def test_bfloat16_on_a_cpu(tiny_data, tmp_path):
    log = train(
        tiny_data, tmp_path / "run", "--cpu-bf16", "--max-epoch", "6", "--eval-captions", "--no-epoch-checkpoints"
    ).stdout  # fmt: skip
    losses = logged(log, "nll_loss", "train")
    assert losses[-1] < losses[0] and logged(log, "cider", "valid")
    exact = train(tiny_data, tmp_path / "exact", "--max-epoch", "6", "--no-epoch-checkpoints").stdout
    assert losses == pytest.approx(logged(exact, "nll_loss", "train"), rel=0.03)
    assert losses != logged(exact, "nll_loss", "train")
    generate(tiny_data, tmp_path / "run" / "checkpoint_last.pt", tmp_path, "--beam", "2", "--cpu-bf16")
    assert all(caption for (caption, *_) in generated(tmp_path).values())
