"""The detectors, by name.

To add a family of them, write a module with a function `load`, and add it to `FAMILIES`.
"""

from __future__ import annotations

from typing import Final

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.detectors import torchvision_detectors, vg_bottom_up
from xgpt_fairseq.vision.detectors.base import Detector, DetectorOptions

FAMILIES: Final = {
    vg_bottom_up.NAME: vg_bottom_up.load,
    "torchvision:NAME": torchvision_detectors.load,
}


def load_detector(name: str, options: DetectorOptions | None = None) -> Detector:
    """Load a detector with its weights, on the CPU.

    Args:
        name: as in `FAMILIES`.
        options: of it.

    Raises:
        DataError: there is none of this name, its package is not installed, or its weights are missing or damaged.
    """
    family, _, of_family = name.partition(":")
    for form, load in FAMILIES.items():
        if form == name or (of_family and form.startswith(f"{family}:")):
            return load(name, options or DetectorOptions())
    raise DataError(f"there is no detector {name!r}; there are {', '.join(FAMILIES)}")
