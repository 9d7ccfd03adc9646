"""From one stage's checkpoint to the next stage's model: what is reused, new or dropped, by name.

State dicts have the same names in every stage; the model of text pre-training has no image parts, all others have, and
the model of retrieval has a matching head, which no other has.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.feature_statistics import distance

logger = logging.getLogger(__name__)

# Parameters absent from text-only models; may be initialised or dropped when a stage starts from another's checkpoint.
IMAGE_PARTS = ("encoder.regions.", "encoder.alignment.", "decoder.region_")
# Parameters of retrieval models alone; likewise.
MATCHING_PARTS = ("matching.",)


def check_structure(own: str, given: str, *, finetune_from: str | None) -> None:
    """Check that a model of --sharing *own* can load a checkpoint of --sharing *given*.

    Enc and EncDecShare have the same parameters and use them differently: a training may start one from the other.
    EncDec has a stack more, so that neither can stand for it.

    Raises:
        DataError: they differ, and this is no start of a training, or one is EncDec.
    """
    if own == given:
        return
    if finetune_from is None:
        raise DataError(f"the checkpoint is a model of --sharing {given}, this is one of --sharing {own}")
    if "enc-dec" in (own, given):
        raise DataError(
            f"a model of --sharing {own} cannot start from one of --sharing {given}: the decoder of enc-dec has "
            "weights of its own (start it from a checkpoint of enc-dec, or leave out --finetune-from-model)"
        )
    logger.info(f"the checkpoint is a model of --sharing {given}: its weights are reused in one of --sharing {own}")


def check_features(
    own: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor], *, store: str | None, finetune_from: str
) -> None:
    """Warn where a training starts on features of another detector than its checkpoint was trained on.

    Args:
        own: mean (D,) and standard deviation (D,) of the features of *store*, on which it trains.
        given: those that the checkpoint *finetune_from* was trained on.
    """
    found = distance(own, given)
    if found.far and not (torch.distributed.is_initialized() and torch.distributed.get_rank()):  # one process says it
        logger.warning(
            f"the features of the region store {store} are far from those that {finetune_from} was trained on: "
            f"{found}. "
            "Features of all stages must come from one detector with one preprocessing (or are these images of another "
            "kind, such as drawings?)"
        )


def transfer(own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, finetune_from: str | None) -> dict[str, Tensor]:
    """The state that the model loads: the checkpoint's where it has the parameter, the model's own where it may be new.

    Args:
        own: the model's state dict, freshly initialised.
        given: the checkpoint's.
        finetune_from: the checkpoint that a training starts from (--finetune-from-model), for which image parts and the
            matching head may be new or dropped; None: the checkpoint must be this model's.

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
    foreign = [name for name in (*new, *dropped) if not name.startswith(IMAGE_PARTS + MATCHING_PARTS)]
    if foreign:
        raise DataError(
            f"the checkpoint and the model differ in structure (only the checkpoint has: {_listed(dropped)}; only the "
            f"model: {_listed(new)}): use the architecture and options that the checkpoint was trained with"
        )
    if finetune_from is None:
        _check_head(new, dropped)
        if new:
            raise DataError(
                "the checkpoint has no image parts, or not all: a model of text pre-training is started from, by "
                f"--finetune-from-model, and trained with images before it captions (missing: {_listed(new)})"
            )
        if dropped:
            raise DataError(f"the checkpoint has image parts, the model has none ({_listed(dropped)})")
    else:
        for what, names in (("reused", reused), ("new", new), ("dropped", dropped)):
            logger.info(f"parameters {what}: {len(names)} ({_listed(names)})")
    return {name: given.get(name, own[name]) for name in own}


def _check_head(new: Iterable[str], dropped: Iterable[str]) -> None:
    """Raises DataError where only one of checkpoint and model has the matching head."""
    if any(name.startswith(MATCHING_PARTS) for name in new):
        raise DataError(
            "the checkpoint has no matching head: it is no model of retrieval; train one from it (--task "
            "xgpt_retrieval --finetune-from-model)"
        )
    if any(name.startswith(MATCHING_PARTS) for name in dropped):
        raise DataError(
            "the checkpoint has a matching head: it is a model of retrieval (--task xgpt_retrieval, xgpt-evaluate "
            "--retrieval), and does not caption; a training may start from it, by --finetune-from-model"
        )


def _listed(names: Iterable[str]) -> str:
    """Names in order, those that differ in one number together: `encoder.layers.0…11.norm.weight`."""
    groups: dict[str, list[int]] = defaultdict(list)
    for name in names:
        number = re.search(r"\.(\d+)\.", name)
        groups[name[: number.start(1)] + "#" + name[number.end(1) :] if number else name] += (
            [int(number.group(1))] if number else []
        )
    spans = {key: f"{min(n)}…{max(n)}" if len(n) > 1 else f"{n[0]}" if n else "" for key, n in groups.items()}
    return ", ".join(key.replace("#", spans[key]) for key in groups) or "none"
