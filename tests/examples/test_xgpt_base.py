"""The paper's recipe: what its scripts pass, that its YAML says the same, and that every stage runs."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from fairseq import options

from tests.end_to_end.programs import ROOT, SMALL, run
from xgpt_fairseq.captions.references import read_references
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.models.xgpt import XGPTConfig

RECIPE = ROOT / "examples" / "xgpt_base"
STAGES = {"text": "1_text.sh", "out_of_domain": "2_out_of_domain.sh", "in_domain": "3_in_domain.sh",
          "finetune": "4_finetune.sh", "scst": "6_scst.sh"}  # fmt: skip

# Sections 5.1 to 5.4 and appendix A.2, and paper-silent choices that the README states.
EVERY_STAGE: dict[str, Any] = {
    "layers": 12, "hidden_size": 768, "attention_heads": 8, "ffn_size": 3072, "dropout": 0.1,
    "max_target_positions": 60, "refine_layers": 1, "sharing": "enc-dec-share",
    "optimizer": "adam", "adam_betas": "(0.9, 0.98)", "clip_norm": 5.0, "lr_scheduler": "inverse_sqrt",
    "criterion": "xgpt", "fp16": True, "keep_best_checkpoints": 4, "label_smoothing": 0.0,
}  # fmt: skip
PAPER: dict[str, dict[str, Any]] = {
    "text": {"task": "xgpt_text_pretrain", "objectives": "mlm,mass", "objective_weights": "", "lr": [1e-4],
             "max_update": 100_000, "warmup_updates": 4000, "mlm_mask_ratio": 0.15, "mass_fragment_ratio": 0.5,
             "finetune_from_model": None},
    "out_of_domain": {"task": "xgpt_pretrain", "objectives": "ic,imlm,ida,tifg", "objective_weights": "", "lr": [1e-4],
                      "max_update": 100_000, "warmup_updates": 4000, "objective_schedule": "turns",
                      "imlm_fragment_ratio": 0.5,
                      "ida_placeholder": "single", "ida_spans": "poisson", "captions_per_image": 1},
    "in_domain": {"task": "xgpt_pretrain", "objectives": "ic,imlm,ida,tifg", "lr": [1e-5],
                  "max_update": 4 * 11_070, "warmup_updates": 4000,  # COCO: 10 passes over 566 747 captions
                  "objective_weights": "ic=1,imlm=0.3,ida=0.3,tifg=0.3", "captions_per_image": 5},
    "finetune": {"task": "xgpt_caption", "lr": [1e-5], "max_update": 33_208, "warmup_updates": 3320,
                 "captions_per_image": 5,
                 "eval_captions": True, "best_checkpoint_metric": "cider", "maximize_best_checkpoint_metric": True},
    # what the paper doesn't have: rate, passes and batch of VLP's README
    "scst": {"task": "xgpt_caption", "criterion": "xgpt_scst", "scst_samples": 5, "scst_candidates": "beam",
             "scst_baseline": "mean",
             "scst_bleu_weight": 0.0, "lr": [1e-6], "dropout": 0.0, "attention_dropout": 0.0,
             "max_update": 53_104, "warmup_updates": 4000, "captions_per_image": 1,  # COCO: 30 passes over the images
             "eval_captions": True, "best_checkpoint_metric": "cider", "maximize_best_checkpoint_metric": True},
}  # fmt: skip
CAPTIONS, IMAGES = {"coco": 566_747, "flickr30k": 145_000}, {"coco": 113_287, "flickr30k": 29_000}
STARTS_FROM = {"out_of_domain": "text", "in_domain": "out_of_domain", "finetune": "coco/in_domain",
               "scst": "coco/finetune"}  # fmt: skip
BATCH = {stage: 64 if stage == "scst" else 512 for stage in STAGES}


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
    for name, captions in CAPTIONS.items():  # all that the scripts read of a data directory
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(
            json.dumps({"splits": {"train": {"captions": captions, "images": IMAGES[name]}}})
        )
    with_gpu_memory(programs, 0, 0)  # torch, which takes seconds to import, would say the same
    return programs


def with_gpu_memory(recorder: Path, mebibytes: int, gpus: int, half: str = "--fp16") -> None:
    """Let the scripts find GPUs of so much memory, and the half precision *half*."""
    python = recorder / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$2" in\n*device_count*) echo {gpus} {mebibytes} {half};;\n'
        f'*) exec {sys.executable} "$@";;\nesac\n'
    )
    python.chmod(0o755)


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
    start = STARTS_FROM.get(stage, "none").replace("coco", environment.get("DATASET", "coco"))
    checkpoint = recorder.parent / "checkpoints" / start / "averaged.pt"
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
    assert args["batch_size"] * args["update_freq"][0] * args["distributed_world_size"] == BATCH[stage]
    if stage in STARTS_FROM:
        assert args["finetune_from_model"] == f"checkpoints/{STARTS_FROM[stage]}/averaged.pt"
    average = called(recorder.parent)[-1]
    assert average[0] == "xgpt-average-checkpoints" and average[average.index("--best") + 1] == "4"


@pytest.mark.parametrize("stage", ["out_of_domain", "in_domain"])
def test_without_captioning_the_best_checkpoints_are_those_of_the_whole_loss(stage: str, recorder: Path) -> None:
    assert arguments_of(stage, recorder, OBJECTIVES="ida,tifg").best_checkpoint_metric == "loss"
    assert arguments_of(stage, recorder, OBJECTIVES="ida,ic").best_checkpoint_metric == "ic_nll_loss"


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
def test_the_batch_stays_512_whatever_the_number_of_gpus(gpus: int, recorder: Path) -> None:
    args = arguments_of("out_of_domain", recorder, gpus)
    assert args.batch_size * args.update_freq[0] * gpus == 512
    assert args.distributed_world_size == gpus and args.ddp_backend == "legacy_ddp"


def test_a_batch_that_cannot_be_had_is_refused(recorder: Path) -> None:
    failed = script(recorder, "1_text.sh", GPUS="3", check=False)
    assert failed.returncode == 1 and "BATCH=512 is no multiple of GPUS=3; choose GPUS (1, 2, 4 …) or" in failed.stderr
    failed = script(recorder, "1_text.sh", GPUS="1", GPU_BATCH="60", check=False)
    assert failed.returncode == 1 and "BATCH=512 is no multiple of GPU_BATCH=60 × 1 processes" in failed.stderr
    assert not (recorder.parent / "calls").exists()


@pytest.mark.parametrize(
    ("gigabytes", "gpus", "batch"),
    [(8, 1, 64), (16, 1, 256), (24, 1, 256), (32, 1, 512), (80, 1, 512), (16, 4, 128), (80, 8, 64), (11, 3, None)],
)
def test_a_gpu_holds_as_many_captions_as_its_memory(gigabytes, gpus, batch, recorder: Path) -> None:
    with_gpu_memory(recorder, gigabytes * 1024, gpus)
    done = script(recorder, "1_text.sh", check=False)
    if batch is None:
        assert "choose GPUS" in done.stderr
        return
    args = parsed(called(recorder.parent)[0][1:])
    assert (args.batch_size, args.batch_size * args.update_freq[0] * gpus) == (batch, 512)


def test_a_gpu_s_memory_counts_each_sample_of_an_image(recorder: Path) -> None:
    with_gpu_memory(recorder, 8 * 1024, 1)
    args = arguments_of("scst", recorder, 1)
    assert (args.batch_size, args.batch_size * args.update_freq[0]) == (16, 64)
    args = arguments_of("scst", recorder, 1, IMAGES="32", SAMPLES="2", EPOCHS="1")
    assert (args.batch_size, args.update_freq, args.scst_samples) == (32, [1], 2)
    assert args.max_update == math.ceil(IMAGES["coco"] / 32)


@pytest.mark.parametrize("objectives", ["ic", "ic,ida", "ic,imlm,ida,tifg"])
@pytest.mark.parametrize("iterations", [25_000, 50_000])
def test_rows_of_a_table_have_equal_iterations_and_rates(iterations: int, objectives: str, recorder: Path) -> None:
    length = {} if iterations == 25_000 else {"ITERATIONS": str(iterations)}
    args = arguments_of("out_of_domain", recorder, OBJECTIVES=objectives, **length)
    count = len(objectives.split(","))
    assert args.max_update == iterations * count
    assert int(args.warmup_updates) == iterations * count / 25
    assert args.lr[0] * (float(args.warmup_updates) / args.max_update) ** 0.5 == pytest.approx(2e-5)
    assert args.save_interval_updates % count == 0  # after whole iterations


@pytest.mark.parametrize("dataset", CAPTIONS)
@pytest.mark.parametrize("stage", STAGES)
def test_warm_up_is_at_most_a_tenth_and_25_validations_follow(stage: str, dataset: str, recorder: Path) -> None:
    args = arguments_of(stage, recorder, DATASET=dataset)
    assert 0 < int(args.warmup_updates) <= args.max_update / 10
    assert 24 <= args.max_update / args.save_interval_updates <= 25


def test_a_stage_s_length_and_rate_by_variables(recorder: Path) -> None:
    # in the order of the stages: what a stage starts from counts as done
    args = arguments_of("out_of_domain", recorder, ITERATIONS="1")
    assert (args.max_update, args.warmup_updates) == (4, 1)
    args = arguments_of("in_domain", recorder, EPOCHS="1", OBJECTIVES="ic,ida")
    assert args.max_update == 2 * 1107
    args = arguments_of("finetune", recorder, ITERATIONS="700", VALIDATIONS="7", LR="3e-5")
    assert (args.max_update, args.warmup_updates, args.save_interval_updates, args.lr) == (700, 70, 100, [3e-5])


def test_the_last_checkpoints_can_be_averaged_instead_of_the_best(recorder: Path) -> None:
    for average, (option, kept) in {"best": ("--best", 1), "last": ("--last-updates", 4)}.items():
        args = arguments_of("finetune", recorder, ITERATIONS="700", AVERAGE=average)
        assert (args.keep_interval_updates, args.keep_best_checkpoints) == (kept, 4)
        call = called(recorder.parent)[-1]
        assert call[0] == "xgpt-average-checkpoints" and call[call.index(option) + 1] == "4"
    wrong = script(recorder, STAGES["finetune"], check=False, GPUS="8", AVERAGE="all")
    assert wrong.returncode == 1 and wrong.stderr == "error: AVERAGE=all: best or last are known\n"


def test_structures_from_scratch_have_the_rate_of_pre_training(recorder: Path) -> None:
    assert arguments_of("finetune", recorder, FROM="none").lr == [1e-4]
    assert arguments_of("finetune", recorder, FROM="none", ARCH="xgpt_demo").lr == [1e-3]


def test_data_that_are_not_there_are_named(recorder: Path) -> None:
    failed = script(recorder, "4_finetune.sh", FROM="none", DATASET="nocaps", check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("error: data/nocaps is no data directory")
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
    assert "set OBJECTIVES" in script(recorder, "2_out_of_domain.sh", "--objectives", "ic", check=False).stderr
    for joint in (["--objective-schedule", "joint"], ["--objective-schedule=joint"]):  # an iteration is one update
        script(recorder, "2_out_of_domain.sh", *joint, GPUS="8", FROM="none", CHECKPOINTS="joint")
        assert parsed(called(recorder.parent)[-2][1:]).max_update == 25_000


def test_several_nodes_and_float32(recorder: Path) -> None:
    launcher = recorder / "torchrun"
    launcher.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    launcher.chmod(0o755)
    args = arguments_of("out_of_domain", recorder, 16, LAUNCH="torchrun --nnodes=2 --nproc_per_node=8", PRECISION="")
    assert not args.fp16 and args.update_freq == [1] and args.batch_size == 32
    # of a single GPU, its default on a node with one, fairseq would not ask the launcher for the others
    assert args.distributed_world_size == 16


def test_precision_on_a_gpu(recorder: Path) -> None:
    """bfloat16 where the GPU computes in it; generation, which has only float16, in that."""
    with_gpu_memory(recorder, 80_000, 1, "--bf16")
    args = arguments_of("finetune", recorder, 1)
    assert args.bf16 and not args.fp16
    script(recorder, "5_caption.sh", GPUS="1", CHECKPOINT="x.pt")
    generate = next(call for call in called(recorder.parent) if call[0] == "fairseq-generate")
    assert "--fp16" in generate and "--bf16" not in generate
    args = arguments_of("finetune", recorder, 1, PRECISION="--fp16")
    assert args.fp16 and not args.bf16


@pytest.mark.parametrize(("gpus", "bfloat16"), [(0, False), (1, False), (2, True)])
def test_what_torch_says_of_the_gpus(gpus: int, bfloat16: bool, tmp_path: Path) -> None:
    """By a torch that has such GPUs."""
    (tmp_path / "torch.py").write_text(
        f"""
class cuda:
    device_count = lambda: {gpus}
    is_bf16_supported = lambda including_emulation: {bfloat16} and not including_emulation
    class get_device_properties:
        total_memory = 80 << 30
        __init__ = lambda self, device: None
"""
    )
    settings = f'. "{RECIPE / "settings.sh"}"; echo "$FOUND $MEMORY $HALF"'
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "USER_DIR": "x"}
    found = subprocess.run(["bash", "-c", settings], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.split() == [str(gpus), str(80 << 10 if gpus else 0), "--bf16" if bfloat16 else "--fp16"]


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


ITERATIONS = 4  # each followed by a validation: four checkpoints are averaged
OBJECTIVES = {
    "text": ["mlm", "mass"], "out_of_domain": ["ic", "imlm", "ida", "tifg"], "in_domain": ["ic", "imlm", "ida", "tifg"],
    "finetune": ["ic"], "scst": ["ic"],
}  # fmt: skip


def tiny(**environment: str) -> dict[str, str]:
    """Sizes, device and length, and metrics without Java: nothing else of the recipe."""
    return {
        "GPUS": "0", "BATCH": "16", "IMAGES": "8", "GPU_BATCH": "8", "WORKERS": "0", "ARCH": "xgpt_demo",
        "ITERATIONS": str(ITERATIONS), "VALIDATIONS": str(ITERATIONS), "LOG_INTERVAL": "1", "METRICS": "bleu,cider",
        **environment,
    }  # fmt: skip


def check_trained(log: str, folder: Path, stage: str) -> None:
    """Each objective was updated as often as the stage says, with a gradient; it was validated; four best are there."""
    objectives = OBJECTIVES[stage]
    length = ITERATIONS * len(objectives)
    assert f"num_updates: {length} >= max_update: {length}" in log
    states = [load_checkpoint(path) for path in folder.glob("checkpoint.best_*.pt")]
    assert len(states) == 4
    assert load_checkpoint(folder / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == length
    assert all(math.isfinite(state["extra_state"]["val_loss"]) for state in states)
    if stage == "scst":
        assert len(re.findall(r"train_inner\b.*\breward\W+[\d.]+", log)) == ITERATIONS
        return
    for name in objectives:
        assert len(re.findall(rf"train_inner\b.*\b{name}_updates\W+1\b", log)) == ITERATIONS, name
        norms = [float(value) for value in re.findall(rf"train_inner\b.*\b{name}_gnorm\W+([\d.]+)", log)]
        assert len(norms) == ITERATIONS and min(norms) > 0, name
        assert re.search(rf"\bvalid\b.*\b{name}_(nll_loss|mse)\W+[\d.]+", log), name


def test_every_script_runs_on_tiny_data(tiny_captions: Path, tmp_path: Path) -> None:
    """From archives and captions to scores, one script after the other, and a second time without doing it again."""
    images = json.loads(tiny_captions.read_text(encoding="utf-8"))["images"]
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{sentence['raw']}\n" for image in images for sentence in image["sentences"]))
    archive = npz_archive(tmp_path / "archive", tiny_captions)
    run(
        "bash", RECIPE / "0_prepare.sh", cwd=tmp_path, TEXT=str(text), SYMBOLS="60", VALID_LINES="4", WORKERS="1",
        CC_REGIONS=str(archive), CC_CAPTIONS=str(tiny_captions), CC_SIZES=str(tiny_captions),
        COCO_REGIONS=str(archive), **as_on_cocos_pages(tiny_captions, tmp_path / "coco"),
    )  # fmt: skip
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "vocabulary", "text", "cc", "cc.regions", "coco", "coco.regions",
    }  # fmt: skip
    logs = {}
    for stage, name in STAGES.items():
        # fairseq keeps no checkpoint by its updates where an epoch ends: an epoch of 8 images has two of the updates
        special = {"IMAGES": "4", "GPU_BATCH": "4"} if stage == "scst" else {}
        logs[stage] = run("bash", RECIPE / name, *SMALL, cwd=tmp_path, **tiny(**special)).stdout
    for stage in STAGES:
        folder = tmp_path / "checkpoints" / (f"coco/{stage}" if stage in ("in_domain", "finetune", "scst") else stage)
        check_trained(logs[stage], folder, stage)
        assert load_checkpoint(folder / "averaged.pt")["extra_state"]["averaged"], stage
    done = run("bash", RECIPE / "5_caption.sh", cwd=tmp_path, **tiny())
    assert re.search(r"^CIDEr +[\d.]+$", done.stdout, re.MULTILINE)
    results = json.loads((tmp_path / "checkpoints/coco/finetune/captions-test.json").read_text())
    references = read_references(tmp_path / "data" / "coco" / "test.references.json")
    assert len(results) == len(references.captions)

    again = run("bash", RECIPE / "2_out_of_domain.sh", cwd=tmp_path, **tiny())
    assert again.stdout == "done: checkpoints/out_of_domain/averaged.pt\n"


def as_on_cocos_pages(captions: Path, folder: Path) -> dict[str, str]:
    """Karpathy's file, which has no sizes of photos, and COCO's folder of annotations, which has; their variables."""
    (folder / "annotations").mkdir(parents=True)
    images = json.loads(captions.read_text(encoding="utf-8"))["images"]
    sizes = [{"id": image["cocoid"], "width": image.pop("width"), "height": image.pop("height")} for image in images]
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images}), encoding="utf-8")
    for name, part in {"train2014": sizes[::2], "val2014": sizes[1::2]}.items():
        (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps({"images": part}), encoding="utf-8")
    return {"COCO_CAPTIONS": str(folder / "dataset_coco.json"), "COCO_SIZES": str(folder / "annotations")}


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
