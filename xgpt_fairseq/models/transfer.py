"""Loads checkpoints into models: which parameters are reused, new or dropped, and what must be equal.

State dicts have the same names in every stage. All models but that of text pre-training have image parts, and each
model has the heads of the objectives that it trains.
"""

from __future__ import annotations

import enum
import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.feature_statistics import distance
from xgpt_fairseq.regions.feature_settings import settings_that_differ

logger = logging.getLogger(__name__)


class LoadMode(enum.Enum):
    """The purpose of loading a checkpoint.

    Attributes:
        START: to start training from another stage's checkpoint (--finetune-from-model): image parts and heads may be
            new or dropped, and enc and enc-dec-share may start from each other.
        RESUME: to resume training: everything must be equal.
        INFERENCE: to use a trained model: the checkpoint must have all its parts.
    """

    START = "start"
    RESUME = "resume"
    INFERENCE = "inference"


# Parameters absent from text-only models; may be initialised or dropped when a stage starts from another's checkpoint.
IMAGE_PARTS = ("encoder.regions.", "encoder.alignment.")
HEADS = "heads."  # heads.OBJECTIVE.…
LAYER = re.compile(r"\.layers\.(\d+)\.")

# Names in checkpoints of earlier versions, where heads were parts of the decoder and the model.
_OLD_NAMES = {
    "decoder.region_start": "heads.tifg.start",
    "decoder.region_output.": "heads.tifg.output.",
    "matching.": "heads.matching.",
}


def upgrade_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of checkpoints of earlier versions."""
    upgraded = {}
    for name, tensor in state.items():
        old = next((old for old in _OLD_NAMES if name.startswith(old)), None)
        upgraded[name if old is None else _OLD_NAMES[old] + name[len(old) :]] = tensor
    return upgraded


def refuse_old_optimizer(state: Mapping[str, Tensor]) -> None:
    """Raise DataError for a checkpoint whose optimizer state has the parameters in another order."""
    if upgrade_names(state).keys() != state.keys():
        raise DataError(
            "the checkpoint is of an earlier version, whose optimizer has its parameters in another order: finish the "
            "training with that version, or start a new one with --finetune-from-model, in another --save-dir"
        )


def encode_structure(options: Mapping[str, Any]) -> Tensor:
    """Encode options that affect the model's function but no parameter's shape, as uint8 (bytes of JSON)."""
    return torch.tensor(list(json.dumps(options, sort_keys=True).encode()), dtype=torch.uint8)


_UNREADABLE = DataError(
    "the checkpoint's `structure` is unreadable: average checkpoints only with xgpt-average-checkpoints"
)


def decode_structure(buffer: Tensor | None) -> dict[str, Any]:
    """The options recorded in a checkpoint.

    Raises:
        DataError: the bytes are not from `encode_structure`.
    """
    if buffer is None or buffer.dim() == 0:  # earlier versions: an index into this list, or nothing
        old = ("enc-dec-share", "enc-dec", "enc")
        index = 0 if buffer is None else int(buffer)
        if not 0 <= index < len(old):
            raise _UNREADABLE
        return {"sharing": old[index]}
    try:
        options = json.loads(bytes(buffer.tolist()))
    except (ValueError, TypeError, RecursionError):
        raise _UNREADABLE from None
    if not (isinstance(options, dict) and isinstance(options.get("sharing"), str)):
        raise _UNREADABLE
    return options


def check_structure(own: Mapping[str, Any], given: Mapping[str, Any], mode: LoadMode) -> None:
    """Check that a model with the options *own* (see `encode_structure`) can load a checkpoint with those *given*.

    Enc and EncDecShare have the same parameters and use them differently, so one can start from the other. EncDec has
    an additional stack, so it cannot be exchanged with them.

    Raises:
        DataError: they differ otherwise.
    """
    for name in own.keys() & given.keys() - {"sharing", "features"}:
        if own[name] != given[name]:
            option = f"--{name.replace('_', '-')}"
            raise DataError(
                f"the checkpoint is a model with {option} {given[name]}, this is one with {option} {own[name]}: use "
                "the architecture and options that the checkpoint was trained with"
            )
    mine, theirs = own["sharing"], given["sharing"]
    if mine == theirs:
        return
    if mode is not LoadMode.START:
        raise DataError(f"the checkpoint is a model of --sharing {theirs}, this is one of --sharing {mine}")
    if "enc-dec" in (mine, theirs):
        raise DataError(
            f"a model of --sharing {mine} cannot start from one of --sharing {theirs}: the decoder of enc-dec has "
            "weights of its own (start it from a checkpoint of enc-dec, or leave out --finetune-from-model)"
        )
    logger.info(f"the checkpoint is a model of --sharing {theirs}: its weights are reused in one of --sharing {mine}")


def check_boxes(own: bool, given: bool, store: str | None) -> None:
    """Check that a model and a checkpoint are for regions of one kind: with boxes, or without (--boxes none).

    Args:
        own: whether the regions of *store* (None: its name is not known) have boxes.
        given: whether those that the checkpoint was trained on have.

    Raises:
        DataError: they differ.
    """
    if own != given:
        kinds = {True: "with boxes", False: "without boxes (import_regions.py --boxes none)"}
        own_regions = "those here" if store is None else f"those of the region store {store}"
        raise DataError(
            f"the checkpoint was trained on regions {kinds[given]}, {own_regions} are {kinds[own]}: all stages need "
            "stores of one kind"
        )


def check_features(
    own: Mapping[str, Any], given: Mapping[str, Any], mode: LoadMode, *, store: str | None, checkpoint: str | None
) -> None:
    """Compare the settings of the extractors that made a store's regions, and those that a checkpoint was trained on.

    A training may start on other features, which are learned anew, but not unawares.

    Args:
        own: those of *store* (None: its name is not known).
        given: those of *checkpoint*'s training regions.

    Raises:
        DataError: they differ, and no training starts here.
    """
    differences = list(settings_that_differ(own, given))
    if not differences:
        return
    listed = ", ".join(f"{name} {here!r} instead of {there!r}" for name, here, there in differences[:3])
    trained_on = f"those that {checkpoint or 'the checkpoint'} was trained on"
    text = f"the region store {store} has other features than {trained_on} ({listed})"
    if mode is not LoadMode.START:
        raise DataError(f"{text}: extract the photos' regions again, with the same settings")
    if not (torch.distributed.is_initialized() and torch.distributed.get_rank()):  # one process says it
        logger.warning(f"{text}: it has to learn them anew. All stages should use features of one kind")


def warn_of_other_features(
    own: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor], *, store: str | None, checkpoint: str | None
) -> None:
    """Warn if the features of a store are not of the detector that a checkpoint was trained on.

    Args:
        own: mean (D,) and standard deviation (D,) of the features of *store*.
        given: those of the training data of *checkpoint*.
    """
    found = distance(own, given)
    if found.far and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):  # one process says it
        logger.warning(
            f"the features of the region store {store} are far from those that {checkpoint or 'the checkpoint'} was "
            f"trained on: {found}. All stages must use features of one detector with the same preprocessing (or are "
            "these images of another kind, such as drawings?)"
        )


def transfer(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], mode: LoadMode, *, spare_heads: Collection[str] = ()
) -> dict[str, Tensor]:
    """The state to load: the checkpoint's parameters, and the model's own where they may be new.

    Args:
        own: the model's state dict, freshly initialised.
        given: the checkpoint's, with current names.
        spare_heads: objectives whose heads may be dropped for inference.

    Raises:
        DataError: the two differ otherwise, in names or shapes.
    """
    new = [name for name in own if name not in given]
    dropped = [name for name in given if name not in own]
    reused = [name for name in own if name in given]
    for name in reused:
        if own[name].shape != given[name].shape:
            raise DataError(
                f"the checkpoint's {name} has shape {tuple(given[name].shape)}, the model's {tuple(own[name].shape)}: "
                "use the architecture and options that the checkpoint was trained with"
            )
    foreign = [name for name in (*new, *dropped) if not name.startswith((*IMAGE_PARTS, HEADS))]
    if foreign:
        theirs, mine = _depth(given), _depth(own)
        if theirs != mine:
            raise DataError(
                f"the checkpoint is a model with --layers {theirs}, this is one with --layers {mine}: use the "
                "architecture and options that the checkpoint was trained with"
            )
        raise DataError(
            f"the checkpoint and the model differ in structure (only the checkpoint has: {_listed(dropped)}; only the "
            f"model: {_listed(new)}): use the architecture and options that the checkpoint was trained with"
        )
    if mode is LoadMode.START:
        for what, names in (("reused", reused), ("new", new), ("dropped", dropped)):
            logger.info(f"parameters {what}: {len(names)} ({_listed(names)})")
    else:
        _check_image_parts(new, dropped)
        _check_heads(new, dropped, spare=spare_heads if mode is LoadMode.INFERENCE else ())
    return {name: given.get(name, own[name]) for name in own}


def _depth(names: Iterable[str]) -> int:
    """The number of layers of a model with parameters of these *names*."""
    return 1 + max((int(found[1]) for name in names if (found := LAYER.search(name))), default=-1)


def _check_image_parts(new: Iterable[str], dropped: Iterable[str]) -> None:
    """Raise DataError if only one of checkpoint and model has image parts."""
    new, dropped = ([name for name in names if not name.startswith(HEADS)] for names in (new, dropped))
    if new:
        raise DataError(
            "the checkpoint has no image parts, or not all: train a model of text pre-training with images first, with "
            f"--finetune-from-model (missing: {_listed(new)})"
        )
    if dropped:
        raise DataError(f"the checkpoint has image parts, the model has none ({_listed(dropped)})")


def _check_heads(new: Iterable[str], dropped: Iterable[str], *, spare: Collection[str]) -> None:
    """Raise DataError if the checkpoint lacks a head of the model, or has one that is not *spare*."""
    if missing := _heads(new):
        raise DataError(
            f"the checkpoint has no {missing[0]} head, since it was not trained for that: train one from it with an "
            "objective or task of that name (--finetune-from-model)"
        )
    if others := [head for head in _heads(dropped) if head not in spare]:
        raise DataError(
            f"the checkpoint has a {others[0]} head, this model has none: it was trained with other objectives or "
            "another task (xgpt_retrieval trains a matching head, and does not caption); a training may start from "
            "it, with --finetune-from-model"
        )


def _heads(names: Iterable[str]) -> list[str]:
    """The objectives whose heads are among parameters *names*."""
    return sorted({name.split(".")[1] for name in names if name.startswith(HEADS)})


def _listed(names: Iterable[str]) -> str:
    """Names in order, with those that differ in one number merged: `encoder.layers.0…11.norm.weight`."""
    groups: dict[str, list[int]] = defaultdict(list)
    for name in names:
        number = re.search(r"\.(\d+)\.", name)
        groups[name[: number.start(1)] + "#" + name[number.end(1) :] if number else name] += (
            [int(number.group(1))] if number else []
        )
    spans = {key: f"{min(n)}…{max(n)}" if len(n) > 1 else f"{n[0]}" if n else "" for key, n in groups.items()}
    return ", ".join(key.replace("#", spans[key]) for key in groups) or "none"
