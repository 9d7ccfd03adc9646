"""Mistakes with fairseq's programs, as users make them: each ends in one clear line within four, and status 1.

Each program, and each way in which a mistake is found: by argparse, by our checks of the command line and of the run,
by the data, the model and the criterion, by fairseq itself, by the system. Thorough are more rules that are found in
one way: `make test` has them without a program, in `tests/tasks/test_checks.py`, `test_search_checks.py` and others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.end_to_end.programs import PLUGIN, SMALL, generated, logged, run, train


class Run(NamedTuple):
    """A short training, and damaged copies of its checkpoint."""

    data: Path
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "run" / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def finished(tiny_data: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Run:
    def make(folder: Path) -> None:
        train(tiny_data, folder / "run", "--max-update", "2")
        whole = (folder / "run" / "checkpoint_last.pt").read_bytes()
        for name, content in [("cut.pt", whole[:20_000]), ("empty.pt", b""), ("text.pt", b"no checkpoint\n")]:
            (folder / name).write_bytes(content)
        torch.save({"weights": torch.zeros(2)}, folder / "other.pt")

    return Run(tiny_data, once("mistakes", make))


def mistake(*command: object, cwd: Path, **environment: str) -> str:
    """Run *command*, which has to fail; its last line, which is all that it says of the mistake."""
    result = run(*command, cwd=cwd, check=False, **environment)
    output = result.stdout + result.stderr
    said = [line for line in output.splitlines() if "INFO" not in line]
    assert result.returncode == 1 and len(said) <= 4 and "Traceback" not in output, output[-3000:]
    assert said[-1].startswith("error: ")
    return said[-1]


def training(data: object, *arguments: object, without: Iterable[str] = (), program: str = "fairseq-train") -> list:
    """A training's command: options, *without* some of them, and more."""
    options = {"--task": "xgpt_caption", "--arch": "xgpt_demo", "--criterion": "xgpt", "--optimizer": "adam",
               "--lr": "1e-3", "--batch-size": "16", "--max-update": "4", "--num-workers": "0",
               "--log-format": "simple", "--save-dir": "new"}  # fmt: skip
    kept = [part for name, value in options.items() if name not in without for part in (name, value)]
    size = [] if "--arch" in without else SMALL
    return [*program.split(), data, "--user-dir", PLUGIN, *kept, *size, "--cpu", *arguments]


def generating(data: Path, *arguments: object, task: bool = True) -> list:
    options = ["--task", "xgpt_caption"] if task else []
    return ["fairseq-generate", data, "--user-dir", PLUGIN, *options, "--cpu", "--batch-size", "8", *arguments]


def thorough(*cases: tuple) -> list:
    return [pytest.param(*case, marks=pytest.mark.thorough) for case in cases]


# One of each for each option; all of them for all options are thorough.
CHECKPOINTS = {
    "cut.pt": "cut.pt is cut short: it ends after 20,000 bytes", "empty.pt": "empty.pt is empty",
    "text.pt": "text.pt is not a checkpoint", "other.pt": "other.pt is not a fairseq checkpoint",
    "none.pt": "none.pt does not exist",
}  # fmt: skip
TRIED = {("--restore-file", "other.pt"), ("--finetune-from-model", "cut.pt"), ("--path", "text.pt")}


@pytest.mark.parametrize(
    ("option", "name"),
    [
        pytest.param(option, name, marks=() if (option, name) in TRIED else pytest.mark.thorough)
        for option in ("--restore-file", "--finetune-from-model", "--path")
        for name in CHECKPOINTS
    ],
)
def test_a_checkpoint_that_is_none(finished, name, option, tmp_path):
    data, file = finished.data, finished.folder / name
    command = generating(data, option, file) if option == "--path" else training(data, option, file)
    said = mistake(*command, cwd=tmp_path)
    assert CHECKPOINTS[name] in said
    assert option in said or option == "--path"
    assert not list(tmp_path.glob("new/*"))


def test_a_last_checkpoint_that_is_cut_short(finished, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(finished.folder / "cut.pt", tmp_path / "new" / "checkpoint_last.pt")
    shutil.copy(finished.checkpoint, tmp_path / "new" / "checkpoint1.pt")
    said = mistake(*training(finished.data), cwd=tmp_path)
    assert "checkpoint_last.pt is cut short" in said
    assert said.endswith("A whole one lies beside it: --restore-file new/checkpoint1.pt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arguments": ["--task", "xgpt_captoin"], "without": ["--task"]}, "did you mean xgpt_caption"),
        ({"without": ["--arch"]}, "--arch is missing: xgpt"),
        ({"without": ["--task"]}, "--task is missing: xgpt_caption"),
        ({"without": ["--batch-size"]}, "no batch size: pass --batch-size N"),
        ({"arguments": ["--batch-size", "many"]}, "invalid int value: 'many'"),
        ({"arguments": ["--fp16"]}, "--fp16 needs a GPU, and "),
        ({"arguments": ["--max-tokens", "12"], "without": ["--batch-size"]}, "--max-tokens 12: item"),
        ({"arguments": ["--max-tokens", "2"], "without": ["--batch-size"]}, "or than --max-tokens (the shortest has"),
        ({"without": ["--optimizer"]}, "--optimizer is missing: the paper's is adam"),
        ({"without": ["--criterion"]}, "--criterion cross_entropy knows nothing of this task's objectives"),
        ({"arguments": ["--best-checkpoint-metric", "cidr"]}, "--best-checkpoint-metric cidr: validation logs loss, "),
        ({"arguments": ["--attention-heads", "5"]}, "--hidden-size 64 is not a multiple of --attention-heads 5"),
        ({"arguments": ["--valid-subset", "nosuch"]}, "no captions for split 'nosuch'; it has: train, valid, test"),
        ({"arguments": ["--seed", "-1"]}, "--seed must be at least 0 and less than 2**32"),
        ({"arguments": ["--save-dir", __file__]}, "test_mistakes.py/dummy: Not a directory"),
        *thorough(
            ({"without": ["--lr"]}, "--lr 0.25 is fairseq's default, far too high"),
            (
                {"arguments": ["--arch", "transformer"], "without": ["--arch"]},
                "--arch transformer is no model of xgpt_cap",
            ),
            ({"arguments": ["--amp"]}, "--amp: fairseq divides its gradients by the loss scale twice"),
            ({"arguments": ["--num-shards", "2"]}, "--num-shards: fairseq ignores it"),
            ({"arguments": ["--update-freq", "0"]}, "--update-freq must be at least 1, got 0"),
            (
                {"arguments": ["--eval-captions", "--best-checkpoint-metric", "cider"]},
                ": add --maximize-best-checkpoint-m",
            ),
            ({"arguments": ["--lr", "0"]}, "--lr must be above 0, got 0.0"),
            (
                {"arguments": ["--label-smoothing", "3"]},
                "--label-smoothing must be at least 0 and less than 1, got 3.0",
            ),
            ({"arguments": ["--restore-file", "/"]}, "/ is no checkpoint: it is a folder"),
            (
                {"arguments": ["--finetune-from-model", "a.pt", "--restore-file", "b.pt"]},
                "--restore-file goes on with",
            ),
            (
                {"arguments": ["--finetune-from-model", "a.pt", "--reset-optimizer"]},
                "--reset-optimizer goes on with",
            ),
            (
                {"arguments": ["--adam-betas", "0.9"]},
                "--adam-betas needs two numbers of at least 0 and less than 1, such",
            ),
            (
                {"arguments": ["--lr-scheduler", "polynomial_decay"]},
                "--lr-scheduler polynomial_decay needs --total-num-up",
            ),
            ({"arguments": ["--patience", "-3"]}, "--patience must be at least 1 (-1: off), got -3"),
            (
                {"arguments": ["--store-ema"]},
                "--store-ema: fairseq's running average multiplies all that a model holds",
            ),
            (
                {"arguments": ["--maximize-best-checkpoint-metric"]},
                "--best-checkpoint-metric loss is better when it is low",
            ),
            (
                {"arguments": ["--criterion", "xgpt_scst"], "without": ["--criterion"]},
                "needs one to start from: --fi",
            ),
        ),
    ],
)
def test_training(tiny_data, change, reason, tmp_path):
    arguments, without = change.get("arguments", []), change.get("without", [])
    assert reason in mistake(*training(tiny_data, *arguments, without=without), cwd=tmp_path)


def test_training_as_a_module(tmp_path):
    said = mistake(*training("none", program="python -m fairseq_cli.train"), cwd=tmp_path)
    assert "none is not a data directory" in said


def test_training_by_two_processes(tmp_path):
    """torchrun adds lines of its own; the mistake stands in one of ours, without a traceback of fairseq's."""
    command = training("none", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp")[1:]
    result = run(
        "python", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", "fairseq-train", *command,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "error: torchrun has started 2 processes, and each would train alone" in result.stderr
    assert "fairseq_cli/train.py" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--path CHECKPOINT is missing"),
        (["--path", "{}", "--sampling-topk", "3"], "--sampling-topk requires --sampling"),
        (["--path", "{}", "--max-tokens", "5"], "--max-tokens 5: item"),
        (["--path", "{}", "--post-process", "nosuch"], "--post-process (--remove-bpe) nosuch is unknown"),
        (["--path", "{}", "--task", "xgpt_retrieval"], "makes no captions; it ranks images and captions: xgpt-evalua"),
        (["--path", "{}", "--beem", "2"], ""),
        *thorough(
            (["--path", "{}", "--num-shards", "2", "--shard-id", "0"], "xgpt-caption --num-shards N --shard-id I"),
            (["--path", "{}", "--min-len", "9", "--max-len-b", "5"], "longest caption, of 5 tokens"),
            (["--path", "{}", "--min-len", "70"], "--min-len 70 is more than the longest caption, of 59 tokens"),
            (["--path", "{}", "--beam", "5", "--diverse-beam-groups", "2"], "--beam 5 cannot be divided into"),
            (["--path", "{}", "--beam", "2", "--nbest", "3"], "--nbest 3 needs as many hypotheses"),
            (["--path", "{}", "--beam", "0"], "--beam must be at least 1"),
            (["--path", "{}", "--print-step"], "--print-step is for models that refine"),
            (["--path", "{}", "--fp16"], "--fp16 needs a GPU"),
            (["--path", "{}", "--bf16"], "--bf16: fairseq-generate ignores it; its half precision is --fp16"),
            (["--path", "{}", "--model-overrides", "dropout=0"], "--model-overrides needs a dictionary, such as"),
        ),
    ],
)
def test_generation(finished, arguments, reason, tmp_path):
    given = [str(finished.checkpoint) if part == "{}" else part for part in arguments]
    if "--beem" in given:
        result = run(*generating(finished.data, *given), cwd=tmp_path, check=False)
        assert result.returncode == 2 and result.stderr.endswith("error: unrecognized arguments: --beem 2\n")
        assert result.stderr.count("\n") <= 4
        return
    assert reason in mistake(*generating(finished.data, *given), cwd=tmp_path)


def test_generation_without_a_task(finished, tmp_path):
    said = mistake(*generating(finished.data, "--path", finished.checkpoint, task=False), cwd=tmp_path)
    assert "--task is missing: xgpt_caption" in said


@pytest.mark.parametrize(
    ("program", "instead"), [("fairseq-interactive", "xgpt-caption"), ("fairseq-eval-lm", "fairseq-validate")]
)
def test_programs_that_are_for_text(finished, program, instead, tmp_path):
    command = [program, finished.data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", finished.checkpoint]
    said = mistake(*command, "--cpu", cwd=tmp_path)
    assert program in said and instead in said


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("task.data=/none", "/none is not a data directory"),
        ("model._name=transformer", "--arch transformer is no model for this task"),
        ("task.data=null", "data: Incompatible value 'None' for field of type 'str'"),
        ("task._name=xgpt_captoin", "task: {_name: xgpt_captoin} is unknown; the plugin's tasks: xgpt_caption, xgpt_p"),
        *thorough(
            ("optimizer._name=adm", "--optimizer adm is unknown; did you mean adam, adamax?"),
            ("checkpoint.restore_file=none.pt", "--restore-file none.pt does not exist"),
        ),
    ],
)
def test_hydra(tiny_data, override, reason, tmp_path):
    text = f"""# @package _global_
common: {{cpu: true, user_dir: {PLUGIN}}}
task: {{_name: xgpt_caption, data: {tiny_data}}}
model: {{_name: xgpt_demo}}
criterion: {{_name: xgpt}}
dataset: {{batch_size: 8}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
optimization: {{max_update: 2, lr: [0.0001]}}
checkpoint: {{save_dir: {tmp_path / "new"}}}
"""
    (tmp_path / "recipe.yaml").write_text(text)
    command = ["fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "recipe", override]
    result = run(*command, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"error: {reason}")


def test_a_finished_run_makes_no_more_updates(finished, tmp_path):
    folder = shutil.copytree(finished.checkpoint.parent, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = train(finished.data, folder, "--max-update", "2")
    assert "checkpoint_last.pt has made 2 updates: --max-update 2 is reached" in again.stderr + again.stdout
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_restoring_a_run_that_is_longer(finished, tmp_path):
    command = training(finished.data, "--restore-file", finished.checkpoint, "--max-update", "2")
    assert "has made 2 updates already: --max-update 2 leaves nothing to train" in mistake(*command, cwd=tmp_path)
    run(*command, "--reset-optimizer", cwd=tmp_path)  # counts from 0
    more = run(*training(finished.data, "--restore-file", finished.checkpoint, "--save-dir", "more"), cwd=tmp_path)
    assert "num_updates 4" in more.stdout


def test_a_normal_run_says_little(finished, tmp_path):
    command = training(finished.data, "--max-update", "1", "--log-interval", "1")
    result = run(*command, cwd=tmp_path)
    said = result.stdout + result.stderr
    assert "Warning" not in said and "'_name'" not in said and "PackedLinear" not in said
    assert logged(said, "loss")
    said = run(*command, "--log-config", "--save-dir", "again", cwd=tmp_path).stdout
    assert "'_name'" in said and "PackedLinear" in said


def test_generation_says_little(finished, tmp_path):
    result = run(*generating(finished.data, "--path", finished.checkpoint, "--results-path", tmp_path), cwd=tmp_path)
    assert "Warning" not in result.stderr and "'_name'" not in result.stderr and "DEBUG" not in result.stderr
    assert generated(tmp_path)
