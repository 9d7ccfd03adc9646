"""The backbones, by name.

To add a family of them, write a module with a function `load`, and add it to `FAMILIES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from xgpt_fairseq.vision.families import find_loader, for_one_network

if TYPE_CHECKING:
    from xgpt_fairseq.vision.backbones.base import Backbone, BackboneOptions

# form of the name → module here
FAMILIES: Final = {
    "efficientnet-lite0": "efficientnet_lite",
    "efficientnet-lite1": "efficientnet_lite",
    "efficientnet-lite2": "efficientnet_lite",
    "timm:NAME": "timm_models",
    "torchvision:NAME": "torchvision_models",
    "transformers:ORG/NAME[@REVISION]": "transformers_models",
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
    from xgpt_fairseq.vision.backbones.base import BackboneOptions

    module = import_module(f"{__package__}.{find_loader(name, FAMILIES, 'backbone')}")
    with for_one_network():
        backbone: Backbone = module.load(name, options or BackboneOptions())
    return backbone
