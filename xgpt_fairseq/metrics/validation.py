"""Computes a checkpoint's value of its run's validation metric in the way of fairseq-train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import tasks
from fairseq.trainer import Trainer
from fairseq_cli.train import validate
from omegaconf import DictConfig, OmegaConf, open_dict

import xgpt_fairseq.plugin  # noqa: F401  (registers the tasks)
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.errors import DataError


def validation_metric(path: Path) -> float:
    """The value of --best-checkpoint-metric of the checkpoint *path*, by the validation of its run.

    Data, batches (those of all its processes, with --max-valid-steps), precision and seeds are those of the run's
    configuration in the checkpoint, with unchanged paths; the device is this machine's. Nothing is written.

    Raises:
        DataError: the data is missing, or the checkpoint is not from a training with this plugin.
    """
    state = load_checkpoint(path)
    cfg = _configuration(path, state)
    processes, steps = cfg.distributed_training.distributed_world_size, cfg.dataset.max_valid_steps
    with open_dict(cfg):
        cfg.distributed_training.distributed_world_size = 1
        cfg.dataset.max_valid_steps = None  # of this process, which has the batches of all
    task = tasks.setup_task(cfg.task)
    task.repeat_validation(processes=processes, steps=steps)
    subset = cfg.dataset.valid_subset.split(",")[0]  # the one whose value counts
    model = task.build_model(cfg.model, from_checkpoint=True)  # first: its longest text limits retrieval's negatives
    model.load_state_dict(state["model"])
    task.load_dataset(subset, combine=False, epoch=1)
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    (value,) = validate(cfg, trainer, task, SimpleNamespace(epoch=1), [subset])
    return float(value)


def _configuration(path: Path, state: Mapping[str, Any]) -> DictConfig:
    cfg = OmegaConf.create(state.get("cfg") or {})
    if not isinstance(cfg, DictConfig) or not {"task", "model", "criterion"} <= cfg.keys():
        raise DataError(f"{path} has no configuration of its training, and cannot be validated")
    with open_dict(cfg):
        cfg.checkpoint.no_save = True
        cfg.common.tensorboard_logdir = cfg.common.wandb_project = cfg.common.aim_repo = None
        cfg.common.log_format = "none"  # its lines in a stage's log would look like the run's, at update 0
        if not torch.cuda.is_available():
            cfg.common.cpu, cfg.common.fp16, cfg.common.bf16 = True, False, False
    return cfg
