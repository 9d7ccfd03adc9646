"""Pre-training objectives, by the paper's names. A new objective: one module, one line here."""

from __future__ import annotations

from collections.abc import Iterable

from fairseq.data import Dictionary

from xgpt_fairseq.objectives.base import Objective, ObjectiveLoss, ObjectiveOptions, Symbols
from xgpt_fairseq.objectives.ic import ImageCaptioning
from xgpt_fairseq.objectives.ida import ImageConditionedDenoising
from xgpt_fairseq.objectives.imlm import ImageConditionedMLM
from xgpt_fairseq.objectives.mass import MaskedSequenceToSequence
from xgpt_fairseq.objectives.matching import ImageTextMatching
from xgpt_fairseq.objectives.mlm import MaskedLanguageModelling
from xgpt_fairseq.objectives.tifg import TextConditionedImageFeatures

OBJECTIVES: dict[str, type[Objective]] = {
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

# What the tasks train: those of pre-training, and matching, whose batches only xgpt_retrieval makes.
TRAINED: dict[str, type[Objective]] = {**OBJECTIVES, ImageTextMatching.name: ImageTextMatching}


def build_objectives(
    names: Iterable[str], dictionary: Dictionary, options: ObjectiveOptions | None = None
) -> dict[str, Objective]:
    """The objectives *names*, in their order, for captions over *dictionary*."""
    symbols = Symbols.of(dictionary)
    return {name: TRAINED[name](symbols, options or ObjectiveOptions()) for name in names}


__all__ = ["OBJECTIVES", "TRAINED", "Objective", "ObjectiveLoss", "ObjectiveOptions", "Symbols", "build_objectives"]
