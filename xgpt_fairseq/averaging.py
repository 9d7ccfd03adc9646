"""Selects checkpoints and averages them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from xgpt_fairseq.checkpoints import load_checkpoint, updates_of
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import atomic_write
from xgpt_fairseq.models.feature_statistics import STATISTICS

_EPOCH = re.compile(r"checkpoint(\d+)\.pt")
_UPDATE = re.compile(r"checkpoint_\d+_(\d+)\.pt")


@dataclass(frozen=True)
class Choice:
    """Checkpoints to average.

    Attributes:
        paths: the checkpoints, best or last first.
        asked: the number that was asked for.
        found: a sentence on what was found, which says why there are fewer, if there are.
        left_out: a line for each candidate that was left out, with the reason.
    """

    paths: list[Path]
    asked: int
    found: str
    left_out: list[str] = field(default_factory=list)


def best_checkpoints(folder: Path, count: int, *, allow_fewer: bool = False) -> Choice:
    """The *count* best checkpoints of a run, best first, by the value of its validation metric.

    The run's `--maximize-best-checkpoint-metric` says whether higher is better. Values are read from the checkpoints,
    since their names have rounded ones. Several files of one update (checkpoint_best.pt, checkpoint_last.pt, …) count
    once. Of equal values the later update is better. Checkpoints from the learning rate warm-up (`--warmup-updates` in
    their configuration) are left out.

    Raises:
        DataError: fewer than *count* checkpoints (without *allow_fewer*), only checkpoints from the warm-up, or
            checkpoints of several runs.
    """
    check_at_least("the number of checkpoints to average", count, 1)
    found: dict[int, tuple[float, Path]] = {}
    young: dict[int, tuple[int, Path]] = {}  # update → end of the warm-up, file
    rules: dict[tuple[str, bool], Path] = {}
    for path in sorted(_folder(folder).glob("checkpoint*.pt")):
        state = load_checkpoint(path)
        value = state.get("extra_state", {}).get("val_loss")
        if value is None or math.isnan(value):
            continue  # saved without validation, or of a run that has diverged
        rules.setdefault(_rule(state), path)
        updates, warmup = updates_of(state), _warmup(state)
        if updates <= warmup:
            young.setdefault(updates, (warmup, path))
        else:
            found.setdefault(updates, (float(value), path))
    if len(rules) > 1:
        names = ", ".join(f"{path.name}: {metric}" for (metric, _), path in rules.items())
        raise DataError(f"{folder} holds checkpoints of runs with different metrics ({names}); name them by --inputs")
    if young and not found:
        warmup = max(end for end, _ in young.values())
        raise DataError(
            f"{folder}: all {len(young)} validated checkpoints are from the warm-up of {warmup} updates (the last "
            f"is of update {max(young)}): train longer, or with a smaller --warmup-updates, or name them by --inputs"
        )
    maximize = next(iter(rules), ("", False))[1]
    sign = -1 if maximize else 1
    ranked = sorted(found.items(), key=lambda item: (sign * item[1][0], -item[0]))
    what = "validated checkpoints" + (f" from after the warm-up (and {len(young)} from within it)" if young else "")
    return _first(
        [path for _, (_, path) in ranked],
        count,
        folder,
        what,
        allow_fewer,
        [f"{path}: update {n} is within the warm-up of {end} updates" for n, (end, path) in sorted(young.items())],
    )


def _warmup(state: Mapping[str, Any]) -> int:
    """The update at which the learning rate warm-up ends; 0 if the checkpoint has none."""
    scheduler = state["cfg"].get("lr_scheduler") or {}
    options = scheduler if isinstance(scheduler, Mapping) else vars(scheduler)
    return int(options.get("warmup_updates") or 0)


def _rule(state: dict[str, Any]) -> tuple[str, bool]:
    options = state["cfg"]["checkpoint"]
    return options["best_checkpoint_metric"], bool(options["maximize_best_checkpoint_metric"])


def last_checkpoints(folder: Path, count: int, *, by_updates: bool, allow_fewer: bool = False) -> Choice:
    """The *count* last checkpoints of a run by epoch, or by update (`--save-interval-updates`), last first.

    Where an epoch ends at such an update, fairseq saves that checkpoint under the epoch's name, and with
    --no-epoch-checkpoints only as the last one: it counts all the same. Where it was not kept, `left_out` says so.

    Raises:
        DataError: fewer than *count* checkpoints (without *allow_fewer*).
    """
    check_at_least("the number of checkpoints to average", count, 1)
    pattern = _UPDATE if by_updates else _EPOCH
    found = {int(m.group(1)): path for path in _folder(folder).iterdir() if (m := pattern.fullmatch(path.name))}
    what = "checkpoints saved by updates" if by_updates else "checkpoints saved by epochs"
    interval = 0
    if by_updates and found:
        interval = int(load_checkpoint(found[max(found)])["cfg"]["checkpoint"].get("save_interval_updates", 0))
    if interval > 0:
        found = {**_of_whole_intervals(folder, interval), **found}
    numbers = sorted(found, reverse=True)
    chosen = numbers[:count]
    missing = range(chosen[-1], chosen[0], interval) if interval > 0 else ()
    return _first(
        [found[number] for number in numbers],
        count,
        folder,
        what,
        allow_fewer,
        [
            f"update {number}: its epoch ended there, and its checkpoint was not kept (--no-epoch-checkpoints)"
            for number in sorted(set(missing) - set(chosen))
        ],
    )


def _of_whole_intervals(folder: Path, interval: int) -> dict[int, Path]:
    """The checkpoints of epochs, and the last one, that were saved at a multiple of *interval* updates."""
    found: dict[int, Path] = {}
    for path in [folder / "checkpoint_last.pt", *folder.iterdir()]:
        if path.is_file() and (path.name == "checkpoint_last.pt" or _EPOCH.fullmatch(path.name)):
            updates = updates_of(load_checkpoint(path))
            if updates % interval == 0:
                found[updates] = path
    return found


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"--checkpoints {folder} is not a folder")
    return folder


def _first(
    paths: list[Path], count: int, folder: Path, what: str, allow_fewer: bool, left_out: Sequence[str] = ()
) -> Choice:
    found = f"{folder} has {len(paths)} {what}"
    if not paths or (len(paths) < count and not allow_fewer):
        hint = "; pass --allow-fewer to average those" if paths else ""
        raise DataError(f"{found}, {count} are asked for{hint}")
    return Choice(paths[:count], count, found, list(left_out))


def average(inputs: Sequence[Path], output: Path) -> None:
    """Write the mean of the checkpoints' parameters as a checkpoint that fairseq's programs load.

    Sums are float64, and the mean has the parameters' type. Tied parameters, which share memory in a checkpoint, are
    averaged once and stay tied. Non-float entries (the digest of the dictionary) must be equal in all. Statistics of
    the region features, which older checkpoints lack, are left out unless all have them. Configuration and history are
    the first checkpoint's; there is no optimizer state, so training starts with a fresh one.

    Raises:
        DataError: the checkpoints are of different models.
    """
    first = load_checkpoint(inputs[0])
    sums = {name: tensor.double() for name, tensor in _one_name_each(first["model"]).items()}
    for path in tqdm(inputs[1:], desc="averaging", disable=len(inputs) < 3):
        parameters = load_checkpoint(path)["model"]
        if different := sorted((parameters.keys() ^ first["model"].keys()) - set(STATISTICS)):
            raise DataError(f"{path} and {inputs[0]} are of different models: {different[0]} is only in one of them")
        sums = {name: total for name, total in sums.items() if name in parameters}
        for name, total in sums.items():
            if parameters[name].shape != total.shape:
                raise DataError(
                    f"{path} and {inputs[0]} are of different models: {name} is {tuple(parameters[name].shape)} and "
                    f"{tuple(total.shape)}"
                )
            if not first["model"][name].is_floating_point():
                if not torch.equal(parameters[name], first["model"][name]):
                    why = "are of different models" if name == "structure" else "belong to different data"
                    raise DataError(f"{path} and {inputs[0]} have different {name}: they {why}")
            else:
                total += parameters[name]
    means: dict[tuple[Any, ...], Tensor] = {}
    model = {}
    for name, tensor in first["model"].items():
        if name in STATISTICS and name not in sums:
            continue
        key = _storage(tensor)
        if key not in means:
            # in 16 bits, the mean of neighbouring numbers would be one of them
            dtype = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
            means[key] = (sums[name] / len(inputs)).to(dtype) if tensor.is_floating_point() else tensor.clone()
        model[name] = means[key]
    state = {key: value for key, value in first.items() if key != "last_optimizer_state"}
    state["model"] = model
    state["extra_state"] = {
        "train_iterator": {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True},
        "val_loss": None,
        "averaged": [path.name for path in inputs],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as aside:
        torch.save(state, aside)


def _storage(tensor: Tensor) -> tuple[Any, ...]:
    """A key that is equal for tensors in the same memory."""
    return tensor.data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _one_name_each(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The *parameters* without duplicates: tied ones only under their first name."""
    names: dict[tuple[Any, ...], str] = {}
    for name, tensor in parameters.items():
        names.setdefault(_storage(tensor), name)
    return {name: parameters[name] for name in names.values()}
