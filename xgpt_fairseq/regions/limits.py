"""How many regions an image has, and what a store says that has no boxes: numbers that options name."""

from __future__ import annotations

from typing import Final

# Most regions of an image in a store; and those that are kept where the user names no number, as in the paper.
MAX_REGIONS: Final = 1024
DEFAULT_REGIONS: Final = 100
# `source["boxes"]` of a store that has no boxes: every region's is the whole image.
NO_BOXES: Final = "none"
