"""What a run is asked before it begins, each rule by its configuration; `end_to_end/test_mistakes.py` by programs."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import save_checkpoint
from fairseq.data.data_utils import raise_if_valid_subsets_unintentionally_ignored
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

import xgpt_fairseq.plugin  # noqa: F401  (the names of optimizers and schedulers are fairseq's registries')
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks import checks
from xgpt_fairseq.tasks.checks import check_cpu_precision, check_processes, check_run


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """check(program, {"group.name": value, …}): check a run whose configuration is right but for these values.

    Returns the configuration, as it is afterwards.
    """

    def check(program: str | None, changes: dict[str, object], **options: bool) -> Any:
        monkeypatch.setattr(checks, "fairseq_program", lambda: program)
        root = OmegaConf.structured(FairseqConfig)
        right = {
            "task": {"_name": "xgpt_caption"}, "criterion": {"_name": "xgpt"},
            "optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)"}, "lr_scheduler": {"_name": "fixed"},
            "optimization.lr": [1e-4], "checkpoint.save_dir": str(tmp_path / "new"), "common.cpu": True,
            "distributed_training.distributed_world_size": 1,
        }  # fmt: skip
        for name, value in {**right, **changes}.items():
            OmegaConf.update(root, name, value, force_add=True)
        check_run(root.task, **options)
        return root

    return check


@pytest.mark.parametrize("program", ["fairseq-train", "fairseq-hydra-train", "fairseq-validate", None])
def test_what_is_right_passes(check: Any, program: str | None) -> None:
    check(program, {})


def test_a_task_that_no_program_has_set_up_is_not_checked(check: Any) -> None:
    check(None, {"optimization.lr": [0.0]})


def test_validation_may_have_several_splits(check: Any, tmp_path: Path) -> None:
    """fairseq takes `valid2.captions` for a split that was forgotten."""
    (tmp_path / "valid2.captions.bin").touch()
    changes = {"task.data": str(tmp_path), "dataset.valid_subset": "valid,valid2"}
    raise_if_valid_subsets_unintentionally_ignored(check("fairseq-train", changes))


TRAINING: list[tuple[dict[str, object], str]] = [
    ({"common.fp16": True}, "--fp16 needs a GPU, and "),
    ({"common.fp16": True, "common.bf16": True}, "--fp16 and --bf16 are two kinds of half precision"),
    ({"checkpoint.write_checkpoints_asynchronously": True}, "--write-checkpoints-asynchronously (--save-async): "),
    ({"checkpoint.optimizer_overrides": "lr=1e-5"}, "--optimizer-overrides needs a dictionary, such as"),
    ({"common.amp": True}, "--amp: fairseq divides its gradients by the loss scale twice"),
    ({"common.profile": True}, "--profile needs a GPU, and "),
    ({"dataset.num_shards": 2}, "--num-shards: fairseq ignores it"),
    ({"dataset.valid_subset": "valid,train"}, "--valid-subset valid,train: train is what is trained, and validating"),
    ({"task.data": "/data/a:b"}, "/data/a:b: its path has a colon, which fairseq takes for the border between two"),
    ({"dataset.combine_valid_subsets": True}, "--combine-val: splits are validated one by one; name them"),
    ({"dataset.curriculum": 2}, "--curriculum 2: the batches of all epochs are shuffled"),
    ({"dataset.required_seq_len_multiple": 8}, "--required-seq-len-multiple 8: texts are padded to the longest"),
    ({"optimization.lr": [0.25]}, "--lr 0.25 is fairseq's default, far too high"),
    ({"checkpoint.optimizer_overrides": "{'lr': [1e-5]}"}, "lr has no effect with --lr-scheduler fixed, which sets"),
    ({"optimization.lr": [0.0]}, "--lr must be above 0, got 0.0"),
    ({"optimization.lr": []}, "--lr must be above 0, got none"),
    ({"optimization.update_freq": [1, 0]}, "--update-freq must be at least 1, got 0"),
    ({"optimization.stop_min_lr": 1e-3}, "--stop-min-lr 0.001 would end the training before its first update"),
    (
        {"lr_scheduler": {"_name": "inverse_sqrt", "warmup_updates": 0}},
        "--lr-scheduler inverse_sqrt needs --warmup-updates of at least 1, got 0 (without a warm-up: ",
    ),
    (
        {"lr_scheduler": {"_name": "tri_stage", "hold_steps": 9, "decay_steps": 0}},
        "--lr-scheduler tri_stage without --phase-ratio: --decay-steps must be at least 1, got 0",
    ),
    (
        {"checkpoint.keep_interval_updates": 2, "checkpoint.keep_interval_updates_pattern": 0},
        "--keep-interval-updates-pattern must be at least 1 (-1: off), got 0",
    ),
    ({"checkpoint.patience": -3}, "--patience must be at least 1 (-1: off), got -3"),
    (
        {"checkpoint.maximize_best_checkpoint_metric": True},
        "loss is better when it is lower: leave out --maximize-best",
    ),
    ({"checkpoint.best_checkpoint_metric": "cider"}, "cider is better when it is higher: add --maximize-best-"),
    ({"optimizer.adam_betas": "0.9"}, "--adam-betas needs two numbers of at least 0 and less than 1, such"),
    ({"optimizer": {"_name": "adm"}}, "--optimizer adm is unknown; did you mean adam, adamax?"),
    (
        {"dataset.update_ordered_indices_seed": True},
        "--update-ordered-indices-seed: the order differs from epoch to epoch already",
    ),
    ({"ema.store_ema": True}, "--store-ema: fairseq's running average multiplies all that a model holds"),
    ({"criterion": {"_name": "xgpt_scst"}}, "needs one to start from: --finetune-from-model CHECKPOINT"),
    (
        {"criterion": {"_name": "xgpt_scst"}, "task.captions_per_image": 5},
        "--captions-per-image has no effect with --criterion xgpt_scst",
    ),
    ({"checkpoint.restore_file": "/"}, "/ is no checkpoint: it is a folder"),
    ({"checkpoint.restore_file": "none.pt"}, "--restore-file none.pt does not exist"),
    ({"checkpoint.finetune_from_model": "none.pt"}, "--finetune-from-model none.pt does not exist"),
    (
        {"checkpoint.finetune_from_model": "a.pt", "checkpoint.restore_file": "b.pt"},
        "--finetune-from-model starts a new training from a model's weights; --restore-file goes on with another",
    ),
    (
        {"checkpoint.finetune_from_model": "a.pt", "checkpoint.reset_optimizer": True},
        "--finetune-from-model starts a new training from a model's weights; --reset-optimizer goes on with another",
    ),
]


@pytest.mark.parametrize(("changes", "message"), TRAINING, ids=[message[:40] for _, message in TRAINING])
def test_a_mistake_of_a_training(check: Any, changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        check("fairseq-train", changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.glob("new/*"))


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_name": "inverse_sqrt", "warmup_updates": 1}, {"_name": "fixed", "warmup_updates": 0},
        {"_name": "tri_stage", "phase_ratio": (0.1, 0.4, 0.5), "decay_steps": 0},
        {"_name": "tri_stage", "decay_steps": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_schedule_that_fairseq_can_compute(check: Any, scheduler: dict[str, object]) -> None:
    check("fairseq-train", {"lr_scheduler": scheduler})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset.num_shards": 2}, "xgpt-caption --num-shards N --shard-id I"),
        (
            {"distributed_training.distributed_world_size": 2},
            "--distributed-world-size 2: fairseq-generate would caption one part of the images, and end as if",
        ),
        ({"common.bf16": True}, "--bf16: fairseq-generate ignores it; its half precision is --fp16"),
        ({"common.fp16": True}, "--fp16 needs a GPU"),
        ({"common_eval.model_overrides": "dropout=0"}, "--model-overrides needs a dictionary, such as"),
        ({"common_eval.path": "none.pt"}, "checkpoint none.pt does not exist"),
        ({"generation.lm_path": "none.pt"}, "--lm-path: checkpoint none.pt does not exist"),
        ({"common_eval.path": "none.pt", "checkpoint.checkpoint_suffix": "_b"}, "checkpoint none_b.pt does not exist"),
    ],
    ids=str,
)
def test_a_mistake_of_a_generation(check: Any, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check("fairseq-generate", changes)
    assert message in str(caught.value)


def test_a_part_of_a_generation(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (["--distributed-rank", "0"], ["--distributed-rank=1"]):
        monkeypatch.setattr("sys.argv", ["fairseq-generate", "data", *rank])
        check("fairseq-generate", {"distributed_training.distributed_world_size": 2})


@pytest.mark.parametrize("precision", ["fp16", "bf16", "amp", "memory_efficient_bf16"])
def test_the_precision_of_a_training_is_not_that_of_its_validation(
    check: Any, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """fairseq-validate's task has the configuration of the checkpoint, whose training was on a GPU."""
    monkeypatch.setattr("sys.argv", ["fairseq-validate", "data"])
    check("fairseq-validate", {f"common.{precision}": True}, from_checkpoint=True)
    monkeypatch.setattr("sys.argv", ["fairseq-validate", "data", f"--{precision.replace('_', '-')}"])
    with pytest.raises(DataError, match=r"--bf16: fairseq-validate ignores it|--amp: fairseq divides|needs a GPU"):
        check("fairseq-validate", {f"common.{precision}": True}, from_checkpoint=True)


def test_a_training_without_a_gpu_is_not_a_validation_without_one(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model was trained with --cpu; the validation is on a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    changes = {"common.fp16": True, "common.cpu": True}
    monkeypatch.setattr("sys.argv", ["fairseq-validate", "data", "--fp16"])
    check("fairseq-validate", changes, from_checkpoint=True)
    monkeypatch.setattr("sys.argv", ["fairseq-validate", "data", "--fp16", "--cpu"])
    with pytest.raises(DataError, match="--fp16 needs a GPU, and --cpu asks for none"):
        check("fairseq-validate", changes, from_checkpoint=True)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_memory_efficient_half_precision_of_yaml(check: Any, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """fairseq trains in float32 where the other option is not set as well."""
    monkeypatch.setattr(checks, "_check_gpu", lambda given, on_cpu: None)
    common = check("fairseq-hydra-train", {f"common.memory_efficient_{precision}": True}).common
    assert (common.fp16, common.bf16) == (precision == "fp16", precision == "bf16")
    assert not check("fairseq-hydra-train", {}).common[precision]


def test_the_best_value_is_not_that_of_a_training_before(check: Any) -> None:
    """As of the one before in a sweep, which runs in the same process: no checkpoint would be the best."""
    save_checkpoint.best = 0.5
    check("fairseq-hydra-train", {})
    assert not hasattr(save_checkpoint, "best")


def test_the_log_is_not_that_of_a_training_before(check: Any, tmp_path: Path) -> None:
    """The file of this one is open by then."""
    program = logging.getLogger("fairseq_cli.train")
    before, now = (logging.FileHandler(tmp_path / name) for name in ("before.log", "now.log"))
    try:
        for handler in (before, now):
            program.addHandler(handler)
        check("fairseq-hydra-train", {"common.log_file": str(tmp_path / "now.log")})
        assert before not in program.handlers and now in program.handlers
        check("fairseq-hydra-train", {})
        assert now not in program.handlers
    finally:
        for handler in (before, now):
            program.removeHandler(handler)
            handler.close()


DAMAGES = {
    "cut.pt": "cut.pt is cut short: it ends after 400 bytes", "empty.pt": "empty.pt is empty",
    "text.pt": "text.pt is not a checkpoint", "other.pt": "other.pt is not a fairseq checkpoint",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize(
    ("program", "option", "begin"),
    [
        ("fairseq-train", "checkpoint.restore_file", "--restore-file: "),
        ("fairseq-train", "checkpoint.finetune_from_model", "--finetune-from-model: "),
        ("fairseq-generate", "common_eval.path", ""),
    ],
)
def test_a_checkpoint_that_is_none(
    check: Any, program: str, option: str, begin: str, name: str, tmp_path: Path
) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    whole = (tmp_path / "other.pt").read_bytes()
    for file, content in (("cut.pt", whole[:400]), ("empty.pt", b""), ("text.pt", b"no checkpoint\n")):
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        check(program, {option: str(tmp_path / name)})
    assert str(caught.value).startswith(begin) and DAMAGES[name] in str(caught.value)


@pytest.mark.parametrize(
    ("position", "changes", "refused"),
    [
        ({"epoch": 2, "iterations_in_epoch": 8}, {}, False),
        ({"epoch": 2, "iterations_in_epoch": 8}, {"optimization.update_freq": [1, 4]}, False),
        ({"epoch": 2, "iterations_in_epoch": 8}, {"optimization.update_freq": [2]}, True),
        ({"epoch": 2, "iterations_in_epoch": 8}, {"distributed_training.distributed_world_size": 2}, True),
        ({"epoch": 2, "iterations_in_epoch": 0}, {"optimization.update_freq": [2]}, False),
        (
            {"epoch": 2, "iterations_in_epoch": 8},
            {"optimization.update_freq": [2], "checkpoint.reset_dataloader": True},
            False,
        ),
        ({"epoch": 2, "iterations_in_epoch": 8, "update_freq": 4}, {"optimization.update_freq": [2]}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("named", [True, False])
def test_a_checkpoint_that_does_not_say_in_which_update_it_was_saved(
    check: Any, tmp_path: Path, position: dict[str, int], changes: dict[str, object], refused: bool, named: bool
) -> None:
    """Earlier versions' said how many batches of each process were done, which depends on their number."""
    run = {"optimization": {"update_freq": [4]}, "distributed_training": {"distributed_world_size": 1}}
    state = {"model": {}, "cfg": run, "last_optimizer_state": {}, "extra_state": {"train_iterator": position}}
    path = tmp_path / ("named.pt" if named else "new/checkpoint_last.pt")
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)
    options = {"optimization.update_freq": [4], "distributed_training.distributed_world_size": 1, **changes}
    if named:
        options["checkpoint.restore_file"] = str(path)
    if not refused:
        check("fairseq-train", options)
        return
    said = f"{path} was saved by an earlier version in the midst of epoch 2, with --update-freq 4 and 1 process, now "
    with pytest.raises(DataError, match=re.escape(said)):
        check("fairseq-train", options)


@pytest.mark.parametrize(("gpu", "cpu"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize(
    ("program", "environment", "world", "refused"),
    [
        ("fairseq-train", {"WORLD_SIZE": "2", "RANK": "0"}, 1, True),
        ("fairseq-hydra-train", {"WORLD_SIZE": "2", "RANK": "1"}, 1, True),
        ("fairseq-train", {"WORLD_SIZE": "2", "RANK": "0"}, 2, False),
        ("fairseq-train", {"WORLD_SIZE": "1", "RANK": "0"}, 1, False),
        ("fairseq-train", {"WORLD_SIZE": "2"}, 1, False),
        ("fairseq-validate", {"WORLD_SIZE": "2", "RANK": "0"}, 1, False),
    ],
    ids=str,
)
def test_processes_of_torchrun_train_together(
    check: Any,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    environment: dict[str, str],
    world: int,
    refused: bool,
    gpu: bool,
    cpu: bool,
) -> None:
    """On machines of one GPU each, and on CPUs, fairseq does not look whether there are other processes."""
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    changes = {"distributed_training.distributed_world_size": world}
    if not refused:
        check(program, changes)
        return
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    advice = "add --distributed-world-size 2"
    if cpu or not gpu:  # fairseq would divide by the number of GPUs
        advice += ' --distributed-rank "$RANK" --distributed-init-method env:// --distributed-no-spawn '
        advice += "--distributed-backend gloo"
    with pytest.raises(DataError) as caught:
        check(program, {**changes, "common.cpu": cpu})
    assert str(caught.value) == f"torchrun has started 2 processes, and each would train alone: {advice}"


@pytest.mark.parametrize(("tasks", "port", "refused"), [("2", 9999, True), ("2", -1, False), ("1", 9999, False)])
def test_processes_of_slurm_train_together(
    check: Any, monkeypatch: pytest.MonkeyPatch, tasks: str, port: int, refused: bool
) -> None:
    """Without a port, tasks may be those of the job around this training."""
    monkeypatch.setenv("SLURM_NTASKS", tasks)
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    changes = {"distributed_training.distributed_world_size": 1, "distributed_training.distributed_port": port}
    if not refused:
        check("fairseq-train", changes)
        return
    said = r'SLURM has started 2 .* add --distributed-world-size 2 --distributed-rank "\$SLURM_PROCID" .* tcp://.*:9999'
    with pytest.raises(DataError, match=said):
        check("fairseq-train", changes)


@pytest.mark.parametrize("unused", [True, False])
@pytest.mark.parametrize(
    ("backend", "world", "refused"), [("pytorch_ddp", 2, True), ("pytorch_ddp", 1, False), ("legacy_ddp", 2, False)]
)
def test_several_forward_passes_on_several_processes(backend: str, world: int, unused: bool, refused: bool) -> None:
    """torch: "Expected to mark a variable ready only once", for what the last pass does not reach and another does."""
    distributed = SimpleNamespace(distributed_world_size=world, ddp_backend=backend, find_unused_parameters=unused)
    if not refused:
        check_processes(distributed, joint=True)
        return
    with pytest.raises(
        DataError, match="--objective-schedule joint on several processes needs --ddp-backend legacy_ddp"
    ):
        check_processes(distributed, joint=True)
    if unused:
        check_processes(distributed, joint=False)


@pytest.mark.parametrize(
    ("program", "cpu", "gpu", "options", "refused"),
    [
        ("fairseq-train", False, True, {}, True),
        ("fairseq-generate", False, True, {}, True),
        ("fairseq-train", True, True, {}, False),
        ("fairseq-train", False, False, {}, False),
        (None, False, True, {}, False),
        ("fairseq-validate", False, True, {"from_checkpoint": True}, False),
    ],
)
def test_cpu_bf16_is_for_cpus(
    program: str | None, cpu: bool, gpu: bool, options: Any, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "fairseq_program", lambda: program)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    root = OmegaConf.structured(FairseqConfig)
    for name, value in {"task": {"_name": "xgpt_caption", "cpu_bf16": True}, "common.cpu": cpu}.items():
        OmegaConf.update(root, name, value, force_add=True)
    if not refused:
        check_cpu_precision(root.task, **options)
        return
    with pytest.raises(DataError, match="--cpu-bf16 is for CPUs, and a GPU would be used: add --cpu"):
        check_cpu_precision(root.task, **options)
