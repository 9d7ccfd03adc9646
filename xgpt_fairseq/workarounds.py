"""Workarounds for bugs of fairseq 0.12, without changing fairseq.

`tests/test_workarounds.py` shows each bug on stock fairseq, and so fails when a release no longer needs the workaround.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import data_utils
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import DiverseBeamSearch
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from xgpt_fairseq.checkpoints import load_checkpoint, updates_of
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write

logger = logging.getLogger(__name__)


def with_last_batch(batches: list[Any], indices: np.ndarray) -> list[Any]:
    """fairseq's *batches* of *indices*, with the last one that fairseq drops.

    `batch_by_size` drops the last batch if its size is not a multiple of --required-batch-size-multiple, which is 8 by
    default: up to 7 items of every epoch and of every test set are never seen (facebookresearch/fairseq#5036).
    """
    dropped = indices[sum(len(batch) for batch in batches) :]
    return [*batches, dropped] if len(dropped) else list(batches)


class RepeatBlock(NGramRepeatBlock):
    """--no-repeat-ngram-size without the CUDA extension.

    fairseq compares the end of the whole token buffer, which is padding until the search is over, so it never blocks
    anything; the tokens generated so far are at the beginning of the buffer. With n = 1 it blocks nothing either, since
    its slice of the last n - 1 = 0 tokens is the whole buffer.
    """

    def _no_repeat_ngram(self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        if self.no_repeat_ngram_size == 1:
            # without the first position, the end-of-sentence symbol at the start of every search
            return lprobs.scatter_(1, tokens[:, 1 : step + 1], -math.inf)
        return super()._no_repeat_ngram(tokens[:, : step + 1], lprobs, bsz, beam_size, step)


def never_unknown(generator: SequenceGenerator) -> None:
    """Keep *generator* from emitting `<unk>`.

    fairseq's `tokens_to_suppress` refuses that symbol, and --unkpen would also forbid it in a given prefix
    (--prefix-size), after which nothing could follow.
    """
    unknown, suppressed = torch.tensor([generator.unk]), generator.token_indices_to_suppress
    generator.token_indices_to_suppress = unknown if suppressed is None else torch.cat([suppressed, unknown])


def sample_for_search(sample: dict[str, Any], generator: Any) -> dict[str, Any]:
    """The batch as *generator* can use it.

    Diverse beam search keeps a table with one row per sentence of the batch but looks rows up by the sentences' ids in
    the dataset; without ids the generator counts within the batch.
    """
    if isinstance(getattr(generator, "search", None), DiverseBeamSearch):
        return {key: value for key, value in sample.items() if key != "id"}
    return sample


def keep_bf16_off_tpus(args: Any) -> None:
    """Let --bf16 train on a GPU.

    fairseq's command line sets --tpu with it (facebookresearch/fairseq#4696), and its trainer then asks for an XLA
    device. An architecture is what fairseq calls with the options before it makes its configuration of them.
    """
    if getattr(args, "bf16", False) and "--tpu" not in sys.argv:
        args.tpu = False


def keep_cpus_to_one_process(args: Any) -> None:
    """Let --cpu train on a machine with several GPUs.

    fairseq's default of --distributed-world-size is their number, with --cpu as well: it starts that many processes,
    which fail on the first GPU. Those that torchrun has started are as many as it says. Called as `keep_bf16_off_tpus`;
    a YAML file has to say it itself.
    """
    given = any(argument.split("=")[0] == "--distributed-world-size" for argument in sys.argv)
    started = os.environ.keys() >= {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"}  # as fairseq asks
    if getattr(args, "cpu", False) and not given and not started:
        args.distributed_world_size = 1


def correct_options(args: Any) -> None:
    """What fairseq's command line has made of the options of a training, corrected before it is a configuration."""
    keep_bf16_off_tpus(args)
    keep_cpus_to_one_process(args)


def load_checkpoints_on_all_ranks(task_cfg: Any) -> None:
    """Let every process read checkpoints itself: --load-checkpoint-on-all-dp-ranks.

    By default rank 0 reads the state and broadcasts it with torch.save and torch.load. Its configuration is a
    DictConfig by then, which torch's `weights_only=True` refuses: no run of several processes could resume. The option
    is not in the task's config group, so it is set through the root config.
    """
    root = task_cfg._get_root() if OmegaConf.is_config(task_cfg) else None
    if root is not None and "checkpoint" in root:
        with open_dict(root):
            root.checkpoint.load_checkpoint_on_all_dp_ranks = True


class BestCheckpoints:
    """--keep-best-checkpoints N keeps N.

    fairseq does not keep a checkpoint that is worse than all it keeps, even if it keeps fewer than N: a run whose first
    validation was its best ends with one. It also overwrites a checkpoint of equal value if the random digit that tells
    them apart is the same. The task calls this object before and after validation and after saving. It moves a
    checkpoint of equal value away beforehand, and writes the missing one afterwards, under fairseq's names, so that
    fairseq's own pruning still works.

    Args:
        task_cfg: the task's configuration; during training it is part of the root config.
    """

    def __init__(self, task_cfg: Any) -> None:
        root = task_cfg._get_root() if OmegaConf.is_config(task_cfg) else {}
        self._cfg: Any = root.get("checkpoint") or {}
        self._distributed: Any = root.get("distributed_training") or {}
        self._count: int = 0 if self._cfg.get("no_save", False) else self._cfg.get("keep_best_checkpoints", 0)
        self._epoch = 0
        self._coming: tuple[int, str] | None = None  # the last validated update, and its checkpoint's name
        self._validating = False

    def begin_validation(self, epoch: int) -> None:
        """Call before a validation of all subsets; the first subset's value counts, as in fairseq."""
        self._epoch, self._coming, self._validating = epoch, None, True

    def validated(self, stats: Mapping[str, Any]) -> None:
        """Call after a subset was validated; *stats* holds its metrics and `num_updates`."""
        if not self._validating or self._count <= 0:
            return
        self._validating = False
        value, updates = stats[self._cfg.best_checkpoint_metric], stats["num_updates"]
        with data_utils.numpy_seed(self._epoch, updates, value):
            digit = np.random.randint(0, self._count)  # noqa: NPY002  (fairseq's own draw)
        name = self._name(value, digit)
        if not self._pattern.fullmatch(name):
            return  # NaN, infinite or negative: fairseq neither counts nor prunes such names
        self._coming = (updates, name)
        if self._distributed.get("distributed_rank", 0) == 0:
            self._make_room(Path(self._cfg.save_dir), name, value, updates)

    def saved(self, path: Path, updates: int) -> None:
        """Call after fairseq has written *path* and its copies after *updates*; writes what is missing."""
        coming, self._coming = self._coming, None
        if coming is None or coming[0] != updates:
            return  # saved without a validation
        name = coming[1]
        kept = [file.name for file in path.parent.iterdir() if self._pattern.fullmatch(file.name)]
        if name in kept or len(kept) >= self._count:
            return
        # a copy, not a link: fairseq copies later checkpoints into existing files
        with atomic_write(path.parent / name) as aside:
            shutil.copyfile(path, aside)
        logger.info(f"{name} is kept too: it is among the best {self._count} so far")

    @property
    def _pattern(self) -> re.Pattern[str]:
        metric, suffix = (re.escape(part) for part in (self._cfg.best_checkpoint_metric, self._suffix))
        return re.compile(rf"checkpoint\.best_{metric}_\d+\.?\d*{suffix}\.pt")

    @property
    def _suffix(self) -> str:
        return self._cfg.get("checkpoint_suffix") or ""

    def _name(self, value: float, digit: int) -> str:
        return f"checkpoint.best_{self._cfg.best_checkpoint_metric}_{value:.3f}{digit}{self._suffix}.pt"

    def _make_room(self, folder: Path, name: str, value: float, updates: int) -> None:
        """Keep a checkpoint of another update from being overwritten: free *name*, or give it to this update's.

        A resumed run repeats updates, whose checkpoints may have another digit by then.
        """
        files = [folder / self._name(value, digit) for digit in range(self._count)]
        own = next((file for file in files if _updates_of(file) == updates), None)
        wanted = folder / name
        if own == wanted or (own is None and not wanted.exists()):
            return
        if own is not None:
            with atomic_write(wanted) as aside:
                own.rename(aside)
                if wanted.exists():
                    wanted.rename(own)
            return
        free = next((file for file in files if not file.exists()), None)
        if free is not None:  # else all possible names of this value are taken
            wanted.rename(free)


def _updates_of(checkpoint: Path) -> int | None:
    """The update at which a checkpoint was saved; None if it is missing or damaged."""
    try:
        return updates_of(load_checkpoint(checkpoint))
    except DataError:
        return None
