"""Pre-training objectives, by the paper's names. To add one, write a module and add a line here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from typing import Any

from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum

from xgpt_fairseq.objectives.base import Objective, ObjectiveLoss, Options, Symbols
from xgpt_fairseq.objectives.ic import ImageCaptioning
from xgpt_fairseq.objectives.ida import ImageConditionedDenoising
from xgpt_fairseq.objectives.imlm import ImageConditionedMLM
from xgpt_fairseq.objectives.mass import MaskedSequenceToSequence
from xgpt_fairseq.objectives.matching import ImageTextMatching
from xgpt_fairseq.objectives.mlm import MaskedLanguageModelling
from xgpt_fairseq.objectives.tifg import TextConditionedImageFeatures

PRETRAINING_OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective
    for objective in (
        ImageCaptioning,
        ImageConditionedMLM,
        ImageConditionedDenoising,
        TextConditionedImageFeatures,
        MaskedLanguageModelling,
        MaskedSequenceToSequence,
    )
}

# Including matching, whose batches only xgpt_retrieval makes.
ALL_OBJECTIVES: dict[str, type[Objective]] = {**PRETRAINING_OBJECTIVES, ImageTextMatching.name: ImageTextMatching}


def build_objectives(
    names: Iterable[str], dictionary: Dictionary, options: Mapping[str, Any] | None = None
) -> dict[str, Objective]:
    """Build the objectives *names*, in order, for captions over *dictionary*.

    Args:
        options: values by the names of the tasks' options (`ida_mask_ratio`); all others are ignored. An option without
            a value has its default.

    Raises:
        DataError: an option of one of *names* has an invalid value.
    """
    symbols = Symbols.of(dictionary)
    return {name: ALL_OBJECTIVES[name](symbols, **_options_of(name, options or {})) for name in names}


def check_options(names: Iterable[str], options: Mapping[str, Any]) -> None:
    """Check the options of all objectives *names*, including those that are not trained.

    Raises:
        DataError: one has an invalid value.
    """
    for name in names:
        ALL_OBJECTIVES[name].Options(**_options_of(name, options)).check(name)


def _options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The *options* of objective *name*, by field name; choices as strings."""
    found = {}
    for each in fields(ALL_OBJECTIVES[name].Options):
        if (key := f"{name}_{each.name}") in options:
            found[each.name] = str(options[key]) if each.metadata["choices"] else options[key]
    return found


def option_fields(objectives: Iterable[type[Objective]]) -> list[tuple[str, Any, Any]]:
    """The options of *objectives* as fields of a task's configuration, for `dataclasses.make_dataclass`."""
    made = []
    for objective in objectives:
        for each in fields(objective.Options):
            choices = each.metadata["choices"]
            # fairseq needs types as objects, and choices as an enumeration
            kind = ChoiceEnum(list(choices)) if choices else type(each.default)
            metadata = {"help": each.metadata["help"]}
            made.append((f"{objective.name}_{each.name}", kind, field(default=each.default, metadata=metadata)))
    return made


__all__ = [
    "ALL_OBJECTIVES",
    "PRETRAINING_OBJECTIVES",
    "Objective",
    "ObjectiveLoss",
    "Options",
    "Symbols",
    "build_objectives",
    "check_options",
    "option_fields",
]
