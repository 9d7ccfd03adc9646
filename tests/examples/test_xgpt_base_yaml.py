"""The YAML files of the paper's recipe: that they say what the scripts pass, and that each trains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.programs import ROOT, run
from tests.examples import test_xgpt_base
from tests.examples.test_xgpt_base import (
    ITERATIONS,
    OBJECTIVES,
    RECIPE,
    STAGES,
    arguments_of,
    called,
    check_trained,
)

recorder = test_xgpt_base.recorder  # a fixture


@pytest.mark.parametrize("stage", STAGES)
def test_the_yaml_says_what_the_script_passes(stage: str, recorder: Path) -> None:
    args = vars(arguments_of(stage, recorder))
    text = (RECIPE / "yaml" / f"{stage}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    names = {"task": "task", "model": "arch", "criterion": "criterion", "optimizer": "optimizer",
             "lr_scheduler": "lr_scheduler"}  # fmt: skip
    said = {}
    for group, settings in yaml.safe_load(text).items():
        for name, value in settings.items():
            said[names[group] if name == "_name" else name] = value
    open_ones = {"data", "save_dir", "user_dir", "finetune_from_model"}
    for name, value in said.items():
        if name in open_ones:
            assert value == "???", name
        else:
            assert str(args[name]) == str(value), name  # fairseq keeps some numbers as text
    # and nothing that the script passes is missing
    passed = {part[2:].replace("-", "_") for part in called(recorder.parent)[0] if part.startswith("--")}
    assert passed - {"arch", "distributed_world_size"} <= set(said)


def test_the_documented_command_has_the_papers_batch_on_one_gpu() -> None:
    """The files are for 8 GPUs: without an update_freq, an update would have an eighth of the captions."""
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```bash\n(fairseq-hydra-train .*?)^```", page, re.DOTALL | re.MULTILINE)
    words = shlex.split(command)
    file = RECIPE / "yaml" / f"{words[words.index('--config-name') + 1]}.yaml"
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    [batches] = yaml.safe_load(typed["optimization.update_freq"])
    assert settings["dataset"]["batch_size"] * batches == 512


def train_by_yaml(stage: str, data: Path, folder: Path, start: Path | None) -> str:
    """What fairseq-hydra-train says. Overridden are data, device, sizes and length, and what the stage starts from."""
    length = ITERATIONS * len(OBJECTIVES[stage])
    started = [] if stage == "text" else [f"checkpoint.finetune_from_model={start or 'null'}"]
    done = run(
        "fairseq-hydra-train", "--config-dir", RECIPE / "yaml", "--config-name", stage,
        f"common.user_dir={ROOT / 'xgpt_fairseq'}", f"task.data={data}",
        f"checkpoint.save_dir={folder}", *started, "common.fp16=false", "common.cpu=true",
        "model._name=xgpt_demo", "+model.layers=1", "+model.hidden_size=32", "+model.attention_heads=2",
        "+model.ffn_size=64", "dataset.num_workers=0", "dataset.batch_size=8", "common.log_interval=1",
        f"optimization.max_update={length}", "lr_scheduler.warmup_updates=1",
        f"checkpoint.save_interval_updates={length // ITERATIONS}",
        f"dataset.validate_interval_updates={length // ITERATIONS}", f"hydra.run.dir={folder.parent}",
        cwd=folder.parent,
    )  # fmt: skip
    return done.stderr + done.stdout


# in_domain is out_of_domain's task with other numbers, which are compared above
@pytest.mark.parametrize("stage", ["text", "out_of_domain", pytest.param("in_domain", marks=pytest.mark.thorough)])
def test_each_yaml_file_trains(stage: str, tiny_data: Path, tiny_text_data: Path, tmp_path: Path) -> None:
    log = train_by_yaml(stage, tiny_text_data if stage == "text" else tiny_data, tmp_path / "save", None)
    check_trained(log, tmp_path / "save", stage)


def test_cider_optimisation_starts_from_a_captioner(tiny_data: Path, tmp_path: Path) -> None:
    for stage, start in (("finetune", None), ("scst", tmp_path / "finetune" / "checkpoint_last.pt")):
        log = train_by_yaml(stage, tiny_data, tmp_path / stage, start)
        check_trained(log, tmp_path / stage, stage)
