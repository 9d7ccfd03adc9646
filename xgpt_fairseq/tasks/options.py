"""Options of the tasks, read and checked."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import II, OmegaConf

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import ALL_OBJECTIVES, PRETRAINING_OBJECTIVES

logger = logging.getLogger(__name__)

CAPTION_METRICS = ["cider", "bleu4", "repeats", "bad_ends"]  # of --eval-captions


def renamed(cfg: Any, old: str, new: str) -> Any:
    """The value of option *new*, or what was given by its *old* name, with a line that says so."""
    value = values_of(cfg).get(old)
    if not value:
        return getattr(cfg, new)
    logger.warning(f"--{old.replace('_', '-')} is called --{new.replace('_', '-')} now")
    return value


def check_metric(metric: str, objectives: Mapping[str, Any]) -> None:
    """Raises DataError where the best checkpoint is to be chosen by a value that validation does not log."""
    if metric == II("checkpoint.best_checkpoint_metric"):
        return  # a configuration that is no part of a run's
    objective = metric.split("_")[0]
    if objective in ALL_OBJECTIVES and objective not in objectives:
        raise DataError(
            f"--best-checkpoint-metric {metric}: {objective} is not among the objectives that train "
            f"({', '.join(objectives)}), and is not validated"
        )
    logged = ["loss"]
    for name in objectives:
        kinds = ["mse"] if ALL_OBJECTIVES[name].metric_name == "mse" else ["nll_loss", "ppl", "accuracy"]
        logged += [f"{name}_{kind}" for kind in kinds] + (kinds if name == "ic" else [])
    logged += CAPTION_METRICS if "ic" in objectives else []
    if metric not in logged:
        raise DataError(f"--best-checkpoint-metric {metric}: validation logs {', '.join(logged)}")


def values_of(cfg: Any) -> Mapping[str, Any]:
    """A configuration's options by name."""
    return cfg if OmegaConf.is_config(cfg) else vars(cfg)


def choose_objectives(objectives: str, weights: str, *, known: list[str]) -> dict[str, float]:
    """Those of --objectives whose weight is not 0, in their order, with their weights.

    Raises:
        DataError: an objective that the task does not know or that is named twice, a weight that is none.
    """
    chosen = dict.fromkeys(_names(objectives, "--objectives", known), 1.0)
    for setting in filter(None, weights.split(",")):
        name, _, value = setting.partition("=")
        name = name.strip()
        if _names(name, "--objective-weights", known)[0] not in chosen:
            raise DataError(f"--objective-weights {setting}: {name} is not among --objectives {objectives}")
        try:
            chosen[name] = float(value)
        except ValueError:
            raise DataError(f"--objective-weights {setting}: expected name=number, such as imlm=0.3") from None
        if not 0 <= chosen[name] < float("inf"):
            raise DataError(f"--objective-weights {setting}: a weight is a number of 0 or more")
    chosen = {name: weight for name, weight in chosen.items() if weight > 0}
    if not chosen:
        raise DataError("--objective-weights: all objectives have weight 0, nothing is left to train")
    return chosen


def _names(text: str, option: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        needs_images = [name for name in unknown if name in PRETRAINING_OBJECTIVES]
        why = " (it needs images, and this task has none)" if needs_images == unknown and unknown else ""
        raise DataError(
            f"{option}: unknown objective {', '.join(unknown) or repr(text)}{why}; known: {', '.join(known)}"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{option} {text}: an objective is named twice")
    return names
