"""The detectors, by name.

To add a family of them, write a module with a function `load`, and add it to `FAMILIES`.
"""

from __future__ import annotations

from typing import Final

from xgpt_fairseq.vision.detectors import torchvision_detectors, vg_bottom_up
from xgpt_fairseq.vision.detectors.base import Detector, DetectorOptions
from xgpt_fairseq.vision.families import find_loader

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
    return find_loader(name, FAMILIES, "detector")(name, options or DetectorOptions())
