"""The paper's recipe: what its scripts pass, that its YAML says the same, and that every stage runs."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fairseq import options

sys.path.insert(0, str(Path(__file__).parent.parent / "end_to_end"))
from programs import ROOT, SMALL, run

from xgpt_fairseq.evaluation.captions import read_references
from xgpt_fairseq.models.xgpt import XGPTConfig

RECIPE = ROOT / "examples" / "xgpt_base"
STAGES = {"text": "1_text.sh", "out_of_domain": "2_out_of_domain.sh", "in_domain": "3_in_domain.sh",
          "finetune": "4_finetune.sh"}  # fmt: skip

# Sections 5.1 to 5.4 and appendix A.2, and paper-silent choices that the README states.
EVERY_STAGE: dict[str, Any] = {
    "layers": 12, "hidden_size": 768, "attention_heads": 8, "ffn_size": 3072, "dropout": 0.1,
    "max_target_positions": 60, "refine_layers": 1, "sharing": "enc-dec-share",
    "optimizer": "adam", "adam_betas": "(0.9, 0.98)", "clip_norm": 5.0, "lr_scheduler": "inverse_sqrt",
    "warmup_updates": 4000, "fp16": True, "keep_best_checkpoints": 4, "label_smoothing": 0.0,
}  # fmt: skip
PAPER: dict[str, dict[str, Any]] = {
    "text": {"task": "xgpt_text_pretrain", "objectives": "mlm,mass", "objective_weights": "", "lr": [1e-4],
             "stop_min_lr": 2e-5, "mlm_mask_ratio": 0.15, "mass_fragment_ratio": 0.5,
             "finetune_from_model": None},
    "out_of_domain": {"task": "xgpt_pretrain", "objectives": "ic,imlm,ida,tifg", "objective_weights": "", "lr": [1e-4],
                      "stop_min_lr": 2e-5, "objective_schedule": "turns", "imlm_fragment_ratio": 0.5,
                      "ida_placeholder": "single", "ida_spans": "poisson", "captions_per_image": 1},
    "in_domain": {"task": "xgpt_pretrain", "objectives": "ic,imlm,ida,tifg", "lr": [1e-5], "max_epoch": 10,
                  "objective_weights": "ic=1,imlm=0.3,ida=0.3,tifg=0.3", "captions_per_image": 5},
    "finetune": {"task": "xgpt_caption", "lr": [1e-5], "max_epoch": 30, "captions_per_image": 5,
                 "eval_captions": True, "best_checkpoint_metric": "cider", "maximize_best_checkpoint_metric": True},
}  # fmt: skip
STARTS_FROM = {"out_of_domain": "text", "in_domain": "out_of_domain", "finetune": "coco/in_domain"}


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A folder with programs that only write down what they were called with."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("fairseq-train", "fairseq-generate", "xgpt-average-checkpoints", "xgpt-evaluate"):
        program = programs / name
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"open({str(tmp_path / 'calls')!r}, 'a').write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return programs


def called(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def script(recorder: Path, name: str, *arguments: str, check: bool = True, **environment: str):
    result = subprocess.run(
        ["bash", str(RECIPE / name), *arguments],
        cwd=recorder.parent,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{recorder}{os.pathsep}{os.environ['PATH']}", **environment},
        check=False,
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def parsed(arguments: list[str]) -> Namespace:
    given = options.parse_args_and_arch(options.get_training_parser(), input_args=arguments)
    return Namespace(**{**vars(XGPTConfig()), **vars(given)})  # fairseq leaves out the model's defaults


def arguments_of(stage: str, recorder: Path, gpus: int = 8, **environment: str) -> Namespace:
    checkpoint = recorder.parent / "checkpoints" / STARTS_FROM.get(stage, "none") / "averaged.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.touch()
    script(recorder, STAGES[stage], GPUS=str(gpus), **environment)
    train = [call for call in called(recorder.parent) if call[0] == "fairseq-train"][-1]
    return parsed(train[1:])


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_passes_the_papers_hyperparameters(stage: str, recorder: Path) -> None:
    args = vars(arguments_of(stage, recorder))
    expected = {**EVERY_STAGE, **PAPER[stage]}
    assert {name: args[name] for name in expected} == expected
    assert args["batch_size"] * args["update_freq"][0] * args["distributed_world_size"] == 512
    if stage in STARTS_FROM:
        assert args["finetune_from_model"] == f"checkpoints/{STARTS_FROM[stage]}/averaged.pt"
    average = called(recorder.parent)[-1]
    assert average[0] == "xgpt-average-checkpoints" and average[average.index("--best") + 1] == "4"


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
def test_the_batch_stays_512_whatever_the_number_of_gpus(gpus: int, recorder: Path) -> None:
    args = arguments_of("out_of_domain", recorder, gpus)
    assert args.batch_size * args.update_freq[0] * gpus == 512
    assert args.distributed_world_size == gpus and args.ddp_backend == "legacy_ddp"


def test_a_batch_that_cannot_be_had_is_refused(recorder: Path) -> None:
    failed = script(recorder, "1_text.sh", GPUS="3", check=False)
    assert failed.returncode == 1 and "BATCH=512 is no multiple of GPU_BATCH=64 × 3 processes" in failed.stderr
    assert not (recorder.parent / "calls").exists()


def test_a_stage_that_has_nothing_to_start_from_says_so(recorder: Path) -> None:
    failed = script(recorder, "3_in_domain.sh", GPUS="1", check=False)
    assert failed.returncode == 1
    assert "error: checkpoints/out_of_domain/averaged.pt is not there: run the stage before" in failed.stderr
    script(recorder, "3_in_domain.sh", GPUS="1", FROM="none")
    assert "--finetune-from-model" not in called(recorder.parent)[0]


def test_objectives_and_their_weights_by_a_variable(recorder: Path) -> None:
    args = arguments_of("in_domain", recorder, OBJECTIVES="ic,tifg")
    assert (args.objectives, args.objective_weights) == ("ic,tifg", "ic=1,tifg=0.3")


def test_several_nodes_and_float32(recorder: Path) -> None:
    launcher = recorder / "torchrun"
    launcher.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    launcher.chmod(0o755)
    args = arguments_of("out_of_domain", recorder, 16, LAUNCH="torchrun --nnodes=2 --nproc_per_node=8", PRECISION="")
    assert not args.fp16 and args.update_freq == [1] and args.batch_size == 32
    (train,) = (call for call in called(recorder.parent) if call[0] == "fairseq-train")
    assert "--distributed-world-size" not in train  # the launcher says that


@pytest.mark.parametrize("precision", [None, "--cpu-bf16"])
def test_precision_on_a_cpu(precision: str | None, recorder: Path) -> None:
    environment = {} if precision is None else {"PRECISION": precision}
    args = arguments_of("out_of_domain", recorder, 0, **environment)
    assert args.cpu and not args.fp16
    assert args.cpu_bf16 == (precision is not None)
    script(recorder, "5_caption.sh", GPUS="0", CHECKPOINT="x.pt", **environment)
    generate = next(call for call in called(recorder.parent) if call[0] == "fairseq-generate")
    assert "--cpu" in generate and ("--cpu-bf16" in generate) == (precision is not None)


def test_captions_are_searched_with_beam_2(recorder: Path) -> None:
    script(recorder, "5_caption.sh", GPUS="1", CHECKPOINT="model.pt", OUT="out")
    generate, evaluate = called(recorder.parent)
    assert generate[generate.index("--beam") + 1] == "2" and generate[generate.index("--gen-subset") + 1] == "test"
    assert evaluate[0] == "xgpt-evaluate" and "data/coco/test.references.json" in evaluate


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


def tiny(**environment: str) -> dict[str, str]:
    return {"GPUS": "0", "BATCH": "16", "GPU_BATCH": "8", "WORKERS": "0", "ARCH": "xgpt_demo", **environment}


def test_every_script_runs_on_tiny_data(tiny_captions: Path, tmp_path: Path) -> None:
    """From archives and captions to scores, one script after the other, and a second time without doing it again."""
    images = json.loads(tiny_captions.read_text(encoding="utf-8"))["images"]
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{sentence['raw']}\n" for image in images for sentence in image["sentences"]))
    archive = npz_archive(tmp_path / "archive", tiny_captions)
    run(
        "bash", RECIPE / "0_prepare.sh", cwd=tmp_path, TEXT=str(text), SYMBOLS="60", VALID_LINES="4", WORKERS="1",
        CC_REGIONS=str(archive), CC_CAPTIONS=str(tiny_captions), COCO_REGIONS=str(archive),
        COCO_CAPTIONS=str(tiny_captions),
    )  # fmt: skip
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "vocabulary", "text", "cc", "cc.regions", "coco", "coco.regions",
    }  # fmt: skip
    small = [*SMALL, "--lr", "1e-3", "--warmup-updates", "2", "--max-update", "4", "--save-interval-updates", "2"]
    for stage in STAGES.values():
        run("bash", RECIPE / stage, *small, "--stop-min-lr=-1", cwd=tmp_path, **tiny())
    for stage in ("text", "out_of_domain", "coco/in_domain", "coco/finetune"):
        assert (tmp_path / "checkpoints" / stage / "averaged.pt").is_file(), stage
    done = run("bash", RECIPE / "5_caption.sh", cwd=tmp_path, **tiny())
    assert re.search(r"^CIDEr +[\d.]+$", done.stdout, re.MULTILINE)
    results = json.loads((tmp_path / "checkpoints/coco/finetune/captions-test.json").read_text())
    references = read_references(tmp_path / "data" / "coco" / "test.references.json")
    assert len(results) == len(references.captions)

    again = run("bash", RECIPE / "2_out_of_domain.sh", cwd=tmp_path, **tiny())
    assert again.stdout == "done: checkpoints/out_of_domain/averaged.pt\n"


def test_a_yaml_file_trains(tiny_data: Path, tmp_path: Path) -> None:
    run(
        "fairseq-hydra-train", "--config-dir", RECIPE / "yaml", "--config-name", "finetune",
        f"common.user_dir={ROOT / 'xgpt_fairseq'}", f"task.data={tiny_data}",
        f"checkpoint.save_dir={tmp_path / 'save'}",
        "checkpoint.finetune_from_model=null", "common.fp16=false", "common.cpu=true", "model._name=xgpt_demo",
        "+model.layers=1", "+model.hidden_size=32", "+model.attention_heads=2", "+model.ffn_size=64",
        "optimization.max_epoch=1", "dataset.num_workers=0", f"hydra.run.dir={tmp_path}",
        cwd=tmp_path,
    )  # fmt: skip
    assert list((tmp_path / "save").glob("checkpoint.best_cider_*.pt"))


def npz_archive(folder: Path, captions: Path) -> Path:
    """Per-image features and boxes of the images in a caption file."""
    import numpy as np

    rng = np.random.default_rng(0)
    for kind in ("att", "box"):
        (folder / kind).mkdir(parents=True)
    for image in json.loads(captions.read_text(encoding="utf-8"))["images"]:
        corners = np.sort(rng.random((3, 2, 2)), axis=1).reshape(3, 4)
        sizes = np.array([image["width"], image["height"]] * 2)
        np.savez(folder / "att" / f"{image['cocoid']}.npz", feat=rng.normal(size=(3, 8)).astype(np.float16))
        np.save(folder / "box" / f"{image['cocoid']}.npy", (corners * sizes).astype(np.float32))
    return folder
