"""Pre-training objectives, by the paper's names. A new objective: one module, one line here."""

from __future__ import annotations

from xgpt_fairseq.objectives.base import Objective, ObjectiveLoss
from xgpt_fairseq.objectives.ic import ImageCaptioning

OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in (ImageCaptioning(),)}

__all__ = ["OBJECTIVES", "Objective", "ObjectiveLoss"]
