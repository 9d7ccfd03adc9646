"""The detectors, by name.

To add a family of them, write a module with a function `load`, and add it to `FAMILIES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from xgpt_fairseq.vision.choices import VG_BOTTOM_UP
from xgpt_fairseq.vision.families import find_loader, for_one_network

if TYPE_CHECKING:
    from xgpt_fairseq.vision.detectors.base import Detector, DetectorOptions

# form of the name → module here
FAMILIES: Final = {
    VG_BOTTOM_UP: "vg_bottom_up",
    "torchvision:NAME": "torchvision_detectors",
}


def load_detector(name: str, options: DetectorOptions | None = None) -> Detector:
    """Load a detector with its weights, on the CPU.

    Args:
        name: as in `FAMILIES`.
        options: of it.

    Raises:
        DataError: there is none of this name, its package is not installed, or its weights are missing or damaged.
    """
    from xgpt_fairseq.vision.detectors.base import DetectorOptions

    module = import_module(f"{__package__}.{find_loader(name, FAMILIES, 'detector')}")
    with for_one_network():
        detector: Detector = module.load(name, options or DetectorOptions())
    return detector
