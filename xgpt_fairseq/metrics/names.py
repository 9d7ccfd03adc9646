"""The metrics of captions, by name."""

from __future__ import annotations

from typing import Final

VALUES: Final = {
    "bleu": ("BLEU@1", "BLEU@2", "BLEU@3", "BLEU@4"),
    "meteor": ("METEOR",),
    "rouge": ("ROUGE-L",),
    "cider": ("CIDEr",),
    "spice": ("SPICE",),
}
"""What each metric computes, by the names in the results."""

METRICS: Final = tuple(VALUES)
"""What can be asked for, in the order of the results."""
