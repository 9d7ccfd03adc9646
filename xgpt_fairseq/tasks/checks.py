"""What a task checks of the whole run before it begins: options of other groups than its own.

fairseq would fail later, with a traceback that names no file, or go on in silence.
"""

import difflib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY
from omegaconf import OmegaConf

from xgpt_fairseq.checkpoints import is_remote, load_checkpoint, named_checkpoints
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.programs.generated_file import write_aside
from xgpt_fairseq.programs.names import fairseq_program, trains
from xgpt_fairseq.programs.refused import check_overridden_rate, check_overrides, check_training_options
from xgpt_fairseq.programs.training_logs import begin_logs
from xgpt_fairseq.tasks import early_stop
from xgpt_fairseq.tasks.limits import check_betas, check_limits, option, value_of
from xgpt_fairseq.tasks.start import check_start, last_checkpoint, optimises_captions
from xgpt_fairseq.whole_checkpoints import WholeCheckpoints

FAIRSEQ_LR = 0.25  # fairseq's default of --lr
HIGHER_IS_BETTER = ("cider", "bleu4", "accuracy")
HALF_PRECISION = ("fp16", "bf16", "amp", "memory_efficient_fp16", "memory_efficient_bf16")


def root_config(task_cfg: Any) -> Any:
    """The run's whole configuration, of which *task_cfg* is a part; empty for a task that no program has set up."""
    return task_cfg._get_root() if OmegaConf.is_config(task_cfg) else {}


def check_run(task_cfg: Any, *, from_checkpoint: bool = False) -> None:
    """Check the run of one of fairseq's programs; a task that is set up elsewhere passes.

    What fairseq-generate writes gets its name when it is whole. A training whose --max-update is reached, or whose
    --patience or --stop-time-hours are over, ends here, with status 0: fairseq would make one more update at each
    start. In a sweep of hydra's, it makes none.

    Args:
        task_cfg: the task's configuration, which is part of the run's.
        from_checkpoint: the configuration is that of a checkpoint's training, with what this program's command line
            names: fairseq-validate's. The precision and the device of the training are not the program's.

    Raises:
        DataError: half precision without a GPU; a checkpoint that is missing or damaged; an option without effect, or
            with an impossible value.
        SystemExit: nothing is left to train.
    """
    program, root = fairseq_program(), root_config(task_cfg)
    if program is None:
        return
    if program == "fairseq-generate":
        write_aside(root)
    if root["dataset"].num_shards > 1:
        raise DataError(
            "--num-shards: fairseq ignores it, so that every process would do all of the work. Captions by several "
            "processes: xgpt-caption --num-shards N --shard-id I; training: torchrun or --distributed-world-size"
        )
    common = root["common"]
    _check_launch(root["distributed_training"], program, on_cpu=common.cpu or not torch.cuda.is_available())
    check_limits(root)
    if trains(program):
        check_training_options(common, root["checkpoint"])
    given = [name for name in (*HALF_PRECISION, "profile") if common.get(name)]
    on_cpu = common.cpu
    if from_checkpoint:
        given = [name for name in given if option(name) in sys.argv]
        on_cpu = "--cpu" in sys.argv
    if "bf16" in given and not trains(program):
        raise DataError(f"--bf16: {program} ignores it; its half precision is --fp16, whatever the training's was")
    if "amp" in given:
        raise DataError(
            "--amp: fairseq divides its gradients by the loss scale twice, so that hardly anything is trained: use "
            "--bf16 or --fp16"
        )
    if given:
        _check_gpu(option(given[0]), on_cpu=on_cpu)
    if trains(program):
        early_stop.forget()  # fairseq's own state is restored later, of the checkpoint
        begin_logs(common.log_file, common.wandb_project)
        for precision in ("fp16", "bf16"):  # fairseq's command line sets both, and its reader of YAML does not
            common[precision] = common[precision] or common[f"memory_efficient_{precision}"]
        whole = WholeCheckpoints(root["checkpoint"])
        if not root["checkpoint"].no_save and not root["distributed_training"].distributed_rank:  # None: of one process
            whole.hold()
        whole.restore()
        _check_data(root)
        _check_parts(root)
        _check_rate(root["optimization"], root["lr_scheduler"])
        check_overridden_rate(root["checkpoint"].optimizer_overrides, value_of(root["lr_scheduler"], "_name"))
        _check_direction(root["checkpoint"])
        _check_samples(root)
        check_start(root)
    else:
        check_overrides("--model-overrides", root["common_eval"].model_overrides)
        # fairseq-validate has no suffix: the one here is that of the training; and what checks its command line has
        # read the checkpoint
        suffix = root["checkpoint"].checkpoint_suffix
        for path in [] if from_checkpoint else named_checkpoints(root["common_eval"].path, suffix):
            load_checkpoint(path)
        if not from_checkpoint:
            _check_language_model(value_of(root.get("generation"), "lm_path"))


def finetune_from(task_cfg: Any) -> str | None:
    """--finetune-from-model; None where there is a run to resume."""
    checkpoint = root_config(task_cfg).get("checkpoint") or {}
    return None if last_checkpoint(checkpoint).exists() else checkpoint.get("finetune_from_model")


def check_processes(distributed: Any, *, joint: bool) -> None:
    """Check that torch's own way to train on several processes, if it is chosen, can train the objectives.

    Args:
        distributed: fairseq's configuration group `distributed_training`.
        joint: whether an update has a forward pass for each of several objectives.

    Raises:
        DataError: it can't, and would fail obscurely: it wants a gradient of every parameter, or, with
            --find-unused-parameters, takes those for unused that the last forward pass does not reach.
    """
    if distributed.distributed_world_size <= 1 or str(distributed.ddp_backend) not in ("c10d", "pytorch_ddp"):
        return
    if joint:
        raise DataError(
            "--objective-schedule joint on several processes needs --ddp-backend legacy_ddp: "
            f"{distributed.ddp_backend} fails where an update has several forward passes"
        )
    if not distributed.find_unused_parameters:
        raise DataError(
            "several processes need --ddp-backend legacy_ddp (or --find-unused-parameters): not every objective "
            "reaches all parameters"
        )


def _check_language_model(path: str | None) -> None:
    """Check that the checkpoint of --lm-path can be read."""
    if path is None or is_remote(path):
        return
    try:
        load_checkpoint(Path(path))
    except DataError as error:
        raise DataError(f"--lm-path: {error}") from None


def _check_launch(distributed: Any, program: str, *, on_cpu: bool) -> None:
    """Check that each process knows of the others, and that fairseq's program does."""
    world = distributed.distributed_world_size
    named = any(argument.split("=")[0] == "--distributed-rank" for argument in sys.argv)
    if program == "fairseq-generate" and world > 1 and not named:  # with a rank, one part is what is asked for
        raise DataError(
            f"--distributed-world-size {world}: fairseq-generate would caption one part of the images, and end as if "
            "those were all: leave it out, or say which part (--distributed-rank). Captions by several processes: "
            "xgpt-caption --num-shards N --shard-id I"
        )
    started = os.environ.get("WORLD_SIZE", "")
    if trains(program) and world == 1 and "RANK" in os.environ and started.isdecimal() and int(started) > 1:
        # fairseq reads these of torchrun's only where --distributed-world-size, by default the number of the machine's
        # GPUs, is more than 1
        raise DataError(
            f"torchrun has started {started} processes, and each would train alone: "
            + _how_to_meet(started, "$RANK", "env://", on_cpu=on_cpu)
        )
    tasks = os.environ.get("SLURM_NTASKS", "")
    if trains(program) and world == 1 and distributed.distributed_port > 0 and tasks.isdecimal() and int(tasks) > 1:
        # as above; the port says that they are meant to meet, which SLURM_NTASKS alone does not
        port = distributed.distributed_port
        raise DataError(
            f"--distributed-port {port}: SLURM has started {tasks} processes, and each would train alone: "
            + _how_to_meet(tasks, "$SLURM_PROCID", f"tcp://FIRST_NODE:{port}", on_cpu=on_cpu)
        )


def _how_to_meet(processes: str, rank: str, place: str, *, on_cpu: bool) -> str:
    """Which options let *processes* train together.

    On CPUs, fairseq's own reading of the launcher's variables chooses a GPU, or divides by their number.
    """
    world = f"add --distributed-world-size {processes}"
    if not on_cpu:
        return world
    return (
        f'{world} --distributed-rank "{rank}" --distributed-init-method {place} --distributed-no-spawn '
        "--distributed-backend gloo"
    )


def _check_gpu(given: str, *, on_cpu: bool) -> None:
    if on_cpu or not torch.cuda.is_available():
        why = "--cpu asks for none" if torch.cuda.is_available() else "torch finds none here"
        advice = "" if given == "--profile" else " (on CPUs with bfloat16 arithmetic, --cpu-bf16)"
        raise DataError(f"{given} needs a GPU, and {why}: leave {given} out{advice}")


def _check_data(root: Any) -> None:
    """Check which data are read, and options of batches that fairseq hands to tasks, and ours would ignore."""
    dataset, data = root["dataset"], str(value_of(root["task"], "data", ""))
    if os.pathsep in data:
        raise DataError(
            f"{data}: its path has a colon, which fairseq takes for the border between two data directories: rename "
            "it, or give a path without one, such as that of a link"
        )
    if not dataset.disable_validation and dataset.train_subset in dataset.valid_subset.split(","):
        raise DataError(
            f"--valid-subset {dataset.valid_subset}: {dataset.train_subset} is what is trained, and validating on it "
            "would use up the epoch's batches: leave it out (after the training, fairseq-validate --valid-subset "
            f"{dataset.train_subset} gives its loss)"
        )
    if dataset.combine_valid_subsets:
        raise DataError(
            "--combine-val: splits are validated one by one; name them instead, such as --valid-subset valid,valid2"
        )
    # fairseq would look for others by the names of files, where ours are valid2.captions.bin and so on: it would take
    # those of a split that is validated for another's
    dataset.ignore_unused_valid_subsets = True
    if dataset.curriculum:
        raise DataError(f"--curriculum {dataset.curriculum}: the batches of all epochs are shuffled: leave it out")
    if dataset.required_seq_len_multiple != 1:
        raise DataError(
            f"--required-seq-len-multiple {dataset.required_seq_len_multiple}: texts are padded to the longest of "
            "their batch, to no multiple: leave it out"
        )


def _check_parts(root: Any) -> None:
    """Check the parts of a training that fairseq builds of their names, and their options."""
    for group, registry in {"optimizer": OPTIMIZER_REGISTRY, "lr_scheduler": LR_SCHEDULER_REGISTRY}.items():
        name = value_of(root[group], "_name")
        if name not in registry:  # of a YAML file: the command line has asked argparse
            near = difflib.get_close_matches(str(name), list(registry)) or list(registry)
            raise DataError(f"{option(group)} {name} is unknown; did you mean {', '.join(near)}?")
    check_betas(value_of(root["optimizer"], "adam_betas", "(0.9, 0.98)"))
    if root["ema"].store_ema:
        raise DataError(
            "--store-ema: fairseq's running average multiplies all that a model holds, and ours holds bytes, too "
            "(its structure, the digest of its dictionary): average its checkpoints with xgpt-average-checkpoints"
        )
    if root["dataset"].update_ordered_indices_seed:
        raise DataError(
            "--update-ordered-indices-seed: the order differs from epoch to epoch already, and a training that is "
            "resumed within one would go on in another order: leave it out"
        )


def _check_rate(optimization: Any, scheduler: Any) -> None:
    """Check the learning rate, and how many batches make an update."""
    freq = optimization.update_freq
    for value in [freq] if isinstance(freq, int) else freq:
        check_at_least("--update-freq", value, 1)
    rates = list(optimization.lr)
    if not rates or min(rates) <= 0:
        raise DataError(f"--lr must be above 0, got {min(rates) if rates else 'none'}")
    if rates == [FAIRSEQ_LR]:
        raise DataError(
            f"--lr {FAIRSEQ_LR} is fairseq's default, far too high for this model: pass --lr (1e-4 in the paper's "
            "pre-training, 1e-5 in its fine-tuning)"
        )
    name, steps = value_of(scheduler, "_name"), value_of(scheduler, "decay_steps", 0)
    if name == "inverse_sqrt" and value_of(scheduler, "warmup_updates") == 0:  # by which fairseq divides, as below
        raise DataError(
            "--lr-scheduler inverse_sqrt needs --warmup-updates of at least 1, got 0 (without a warm-up: "
            "--lr-scheduler fixed or polynomial_decay)"
        )
    if name == "tri_stage" and value_of(scheduler, "phase_ratio") is None:
        check_at_least("--lr-scheduler tri_stage without --phase-ratio: --decay-steps", steps, 1)
    warms_up = value_of(scheduler, "warmup_updates", 0) > 0
    first = max(0, value_of(scheduler, "warmup_init_lr", 0)) if warms_up else rates[0]
    if optimization.stop_min_lr >= first:
        raise DataError(
            f"{option('stop_min_lr')} {optimization.stop_min_lr} would end the training before its first update, whose "
            f"learning rate is {first}: fairseq asks at every epoch's start. Give the length by --max-update"
        )


def _check_direction(checkpoint: Any) -> None:
    """Check that the best checkpoints are the best: fairseq knows of no metric whether higher is better."""
    metric, maximize = checkpoint.best_checkpoint_metric, checkpoint.maximize_best_checkpoint_metric
    if metric.endswith(HIGHER_IS_BETTER) != maximize:
        advice = "leave out" if maximize else "add"
        better = "lower" if maximize else "higher"
        raise DataError(
            f"--best-checkpoint-metric {metric} is better when it is {better}: {advice} "
            "--maximize-best-checkpoint-metric"
        )


def _check_samples(root: Any) -> None:
    """Check that CIDEr optimisation, whose items are images, is not asked for captions of the data."""
    if optimises_captions(root) and value_of(root["task"], "captions_per_image", 1) != 1:
        raise DataError(
            "--captions-per-image has no effect with --criterion xgpt_scst, which reads each image once: leave it out "
            "(--scst-samples N: as many captions of the model for each image)"
        )


def uses_gpu(task_cfg: Any) -> bool:
    """Whether one of fairseq's programs computes on a GPU; of a task that is set up elsewhere that is not known."""
    common = root_config(task_cfg).get("common")
    return common is not None and not common.cpu and torch.cuda.is_available()


def check_cpu_precision(task_cfg: Any, *, from_checkpoint: bool = False) -> None:
    """Refuse --cpu-bf16 of one of fairseq's programs where a GPU computes, on which it has no effect.

    Args:
        task_cfg, from_checkpoint: as `check_run`. A checkpoint that was trained with it may be validated on a GPU.

    Raises:
        DataError: it is given, and there is a GPU that --cpu does not keep out.
    """
    asked = value_of(task_cfg, "cpu_bf16", False) and fairseq_program() is not None
    if asked and uses_gpu(task_cfg) and not (from_checkpoint and option("cpu_bf16") not in sys.argv):
        raise DataError(
            "--cpu-bf16 is for CPUs, and a GPU would be used: add --cpu, or leave it out (on GPUs --fp16, and in "
            "training --bf16)"
        )
