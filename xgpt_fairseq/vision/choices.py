"""Names and numbers that options of the extraction name, and that the modules of the networks share."""

from __future__ import annotations

import math
from typing import Final

from xgpt_fairseq.regions.limits import MAX_REGIONS

# Cells of a grid in each direction; and of the largest.
GRID: Final = 6
MOST_CELLS: Final = math.isqrt(MAX_REGIONS - 1)
# Instead of a number of cells: each cell of the backbone's own map is a region.
TOKENS: Final = "tokens"

# Longer side of a photo in pixels, in the default backbone's input.
IMAGE_SIZE: Final = 768

# Bottom-up attention's detector; and its regions of a photo at least, where the user names no number.
VG_BOTTOM_UP: Final = "vg-bottom-up"
VG_FEWEST: Final = 10
