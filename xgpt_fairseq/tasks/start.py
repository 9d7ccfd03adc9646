"""The checkpoint that a training starts from or goes on from, checked before anything is built."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from xgpt_fairseq.checkpoints import (
    is_remote,
    load_checkpoint,
    name_with_suffix,
    updates_of,
    whole_checkpoint_beside,
    why_missing,
)
from xgpt_fairseq.data.schedule import batches_of_update
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks import early_stop
from xgpt_fairseq.tasks.limits import option, value_of

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pt"  # fairseq's default of --restore-file: the one of --save-dir
RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
COUNTED = ("reset_optimizer", "reset_dataloader")  # those by which updates and epochs are counted from the beginning


def check_start(root: Any) -> None:
    """Check the checkpoint that the training will start from or go on from, if there is one.

    Raises:
        DataError: it is missing, damaged, or leaves nothing to train; or the start would throw progress away.
        SystemExit: nothing is left to train of this run.
    """
    checkpoint, max_update = root["checkpoint"], root["optimization"].max_update
    last, suffix = last_checkpoint(checkpoint), checkpoint.checkpoint_suffix
    given = None if checkpoint.restore_file == LAST else name_with_suffix(checkpoint.restore_file, suffix)
    is_last = given is not None and last.exists() and os.path.realpath(given) == os.path.realpath(last)
    resets = [option(name) for name in RESETS if checkpoint[name]]
    if checkpoint.finetune_from_model and (given or resets):
        other = ", ".join(resets) or "--restore-file"
        raise DataError(
            f"--finetune-from-model starts a new training from a model's weights; {other} goes on with another "
            "training: leave one out"
        )
    if is_last:  # fairseq then does what it does where it is not named
        given = None
    start = checkpoint.continue_once or checkpoint.finetune_from_model
    if given is not None and not is_remote(given):
        state = _whole(Path(given), "--restore-file")
        _check_position(state, Path(given), root)
        if max_update and (begin := _first_update(state, checkpoint)) >= max_update:
            raise DataError(
                f"--restore-file {given} has made {begin} updates already: --max-update {max_update} "
                "leaves nothing to train (--reset-optimizer counts from 0)"
            )
        _check_newer(last, Path(given), state, checkpoint)
        _check_hours(state, f"--restore-file {given}", root)
        _check_patience(state, f"--restore-file {given}", checkpoint)
    elif given is None and last.exists():
        state = _whole(last, "the last checkpoint of --save-dir")
        _check_reset_again(state, last, checkpoint)
        if (why := _why_over(state, root)) is not None:
            logger.info(f"{last} {why}")
            _end(root)
        else:
            _check_optimizer(state, last, root)
        _check_position(state, last, root)
        if checkpoint.reset_optimizer:
            _check_hours(state, str(last), root)
    elif given is None and not start and optimises_captions(root):
        raise DataError(
            "--criterion xgpt_scst improves a captioner, and needs one to start from: --finetune-from-model CHECKPOINT"
        )
    elif given is None and start and not is_remote(start):
        what = "--continue-once" if checkpoint.continue_once else "--finetune-from-model"
        state = _whole(Path(start), what)
        _check_hours(state, f"{what} {start}", root)
        if checkpoint.continue_once:
            _check_patience(state, f"{what} {start}", checkpoint)


def last_checkpoint(checkpoint: Any) -> Path:
    """The checkpoint of --save-dir from which fairseq goes on, whether it exists or not.

    Args:
        checkpoint: fairseq's configuration group; empty where there is none.
    """
    return Path(checkpoint.get("save_dir", ""), name_with_suffix(LAST, checkpoint.get("checkpoint_suffix") or ""))


def _first_update(state: Mapping[str, Any], checkpoint: Any) -> int:
    """The number of updates from which a training that goes on with the checkpoint *state* counts.

    fairseq reads it with the optimizer's state. Where there is none, as in an average, it counts from 0.
    """
    counts_anew = checkpoint.reset_optimizer or state.get("last_optimizer_state") is None
    return 0 if counts_anew else updates_of(state)


def _why_over(state: Mapping[str, Any], root: Any) -> str | None:
    """Why nothing is left to train of the run whose last checkpoint is *state*; None: something is.

    fairseq would make an update at each start, and overwrite that checkpoint.
    """
    checkpoint, made = root["checkpoint"], updates_of(state)
    max_update, hours = root["optimization"].max_update, root["optimization"].stop_time_hours
    if max_update and not checkpoint.reset_optimizer and made >= max_update:
        return f"has made {made} updates: --max-update {max_update} is reached"
    if not checkpoint.reset_optimizer and _hours_are_over(state, root):
        return f"has been trained for {_hours(state):.2f} hours: --stop-time-hours {hours} are over"
    if early_stop.is_over(state.get("extra_state") or {}, checkpoint):
        return f"has ended {checkpoint.patience} validations after the best one: --patience is over"
    return None


def _end(root: Any) -> None:
    """End the process, with status 0; a sweep of hydra's, whose other trainings may come in it, goes on.

    Of that one, fairseq's loop then makes no epoch, and writes nothing.
    """
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().job, "num"):  # a number in a sweep
        sys.exit(0)
    root["optimization"].max_epoch = -1


def _hours(state: Mapping[str, Any]) -> float:
    """How long the training of the checkpoint *state* took, over all of its starts."""
    return float((state.get("extra_state") or {}).get("previous_training_time", 0)) / 3600


def _hours_are_over(state: Mapping[str, Any], root: Any) -> bool:
    return 0 < root["optimization"].stop_time_hours < _hours(state)


def _check_hours(state: Mapping[str, Any], what: str, root: Any) -> None:
    """Check that --stop-time-hours leaves time where another training's, of *what*, are counted as fairseq does."""
    if _hours_are_over(state, root):
        raise DataError(
            f"{what} was trained for {_hours(state):.2f} hours, which fairseq counts: --stop-time-hours "
            f"{root['optimization'].stop_time_hours} leaves none. Add them to it"
        )


def _check_patience(state: Mapping[str, Any], what: str, checkpoint: Any) -> None:
    """Check that --patience leaves more than a validation where another training's, of *what*, are counted."""
    if early_stop.is_over(state.get("extra_state") or {}, checkpoint):
        raise DataError(
            f"{what} has ended {checkpoint.patience} validations after the best one, which count: --patience "
            f"{checkpoint.patience} leaves none. Give a larger one; or, at the first start, --reset-meters, which "
            "forgets them"
        )


def _check_newer(last: Path, given: Path, state: Mapping[str, Any], checkpoint: Any) -> None:
    """Check that a start from --restore-file, which counts at every start, does not go back behind the last one.

    Args:
        last: the last checkpoint of --save-dir, which the training would overwrite; it may be missing or damaged.
        given: --restore-file.
        state: what is in it.
        checkpoint: fairseq's configuration group.
    """
    try:
        made = updates_of(load_checkpoint(last))
    except DataError:
        return  # --restore-file is how to go on without it
    begin = _first_update(state, checkpoint)
    if made > begin and not checkpoint.no_save:
        again = " and --reset-optimizer" if checkpoint.reset_optimizer else ""
        raise DataError(
            f"--restore-file {given} would begin at update {begin}, and overwrite {last}, which has made {made}: to go "
            f"on with that, leave --restore-file{again} out; to begin again, give another --save-dir"
        )


def _check_optimizer(state: Mapping[str, Any], last: Path, root: Any) -> None:
    """Check that the last checkpoint *last* has the optimizer's state; that of --no-save-optimizer-state has none.

    fairseq would go on in its epoch, but with update 0 and a new optimizer, at each start. Where all epochs are made,
    it makes no update.
    """
    position = (state.get("extra_state") or {}).get("train_iterator") or {}
    is_over = 0 < (root["optimization"].max_epoch or 0) < position.get("epoch", 1)
    if is_over or root["checkpoint"].reset_optimizer or state.get("last_optimizer_state") is not None:
        return
    raise DataError(
        f"{last} has no state of the optimizer (--no-save-optimizer-state leaves it out), without which no training "
        f"goes on: to begin again with its weights, give another --save-dir, with --finetune-from-model {last}"
    )


def _check_reset_again(state: Mapping[str, Any], last: Path, checkpoint: Any) -> None:
    """Check that a training that began by counting anew does not do so at each start: fairseq would, without an end."""
    before = (state.get("cfg") or {}).get("checkpoint") or {}
    again = [option(name) for name in COUNTED if checkpoint[name] and value_of(before, name, False)]
    if again:
        raise DataError(
            f"{last} is of a training that began with {' '.join(again)}, and would begin once more: leave that out to "
            f"go on; to begin again, give another --save-dir, with --restore-file {last}"
        )


def _check_position(state: Mapping[str, Any], path: Path, root: Any) -> None:
    """Check that a training can go on within an epoch: a checkpoint of an earlier version does not say in which update.

    Later ones do (`UpdateIterator`), and can go on with any number of processes and any --update-freq.
    """
    position = (state.get("extra_state") or {}).get("train_iterator") or {}
    within = position.get("iterations_in_epoch", 0) > 0 and not root["checkpoint"].reset_dataloader
    if not within or "update_freq" in position or state.get("cfg") is None:
        return
    before, now = (
        (
            batches_of_update(run["optimization"]["update_freq"], position["epoch"]),
            run["distributed_training"]["distributed_world_size"],
        )
        for run in (state["cfg"], root)
    )
    if before != now:
        raise DataError(
            f"{path} was saved by an earlier version in the midst of epoch {position['epoch']}, with --update-freq "
            f"{before[0]} and {before[1]} process{'es' * (before[1] != 1)}, now {now[0]} and {now[1]}: where to go on "
            "is not known. Go on with those, or count epochs anew: --reset-dataloader"
        )


def optimises_captions(root: Any) -> bool:
    """Whether the training is CIDEr optimisation (of another task than captioning, which refuses it, it is not)."""
    return (value_of(root["task"], "_name"), value_of(root["criterion"], "_name")) == ("xgpt_caption", "xgpt_scst")


def _whole(path: Path, what: str) -> dict[str, Any]:
    """The checkpoint *path*, memory-mapped.

    Raises:
        DataError: it is missing or damaged; says which whole one lies beside it.
    """
    if not path.exists():
        raise DataError(f"{what} {path} does not exist{why_missing(path)}")
    try:
        return load_checkpoint(path)
    except DataError as error:
        beside = whole_checkpoint_beside(path)
        advice = "" if beside is None else f". A whole one lies beside it: --restore-file {beside}"
        raise DataError(f"{what}: {error}{advice}") from None
