"""The backbones, by name.

To add a family of them, write a module with a `Family`, and add it to `FAMILIES`.
"""

from __future__ import annotations

from typing import Final

from xgpt_fairseq.vision.backbones import efficientnet_lite, timm_models, torchvision_models, transformers_models
from xgpt_fairseq.vision.backbones.base import Backbone, BackboneOptions
from xgpt_fairseq.vision.families import find_loader

FAMILIES: Final = {
    "efficientnet-lite0": efficientnet_lite.load,
    "efficientnet-lite1": efficientnet_lite.load,
    "efficientnet-lite2": efficientnet_lite.load,
    "timm:NAME": timm_models.load,
    "torchvision:NAME": torchvision_models.load,
    "transformers:ORG/NAME[@REVISION]": transformers_models.load,
}
DEFAULT: Final = "efficientnet-lite0"


def load_backbone(name: str = DEFAULT, options: BackboneOptions | None = None) -> Backbone:
    """Load a backbone with its weights, on the CPU.

    Args:
        name: as in `FAMILIES`.
        options: of it.

    Raises:
        DataError: there is none of this name, its package is not installed, or its weights are missing or damaged.
    """
    return find_loader(name, FAMILIES, "backbone")(name, options or BackboneOptions())
