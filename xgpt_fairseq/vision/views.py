"""Views: changed copies of photos, mirrored and cropped, whose regions a training may draw instead of the photo's own.

A view has a number, from 1. In each, a photo is cropped to a part of its width and height, the same share of both, at a
random place; in views of odd numbers it is also mirrored. What is drawn depends on the view's number and the photo's id
alone, so that a view is the same whenever, and with however many processes, it is made.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

# A crop keeps at least this share of a photo's area.
LEAST_AREA: Final = 0.75


@dataclass(frozen=True)
class View:
    """What of one photo is seen.

    Attributes:
        left, top, side: the crop, in shares of the photo's width, height, and of both.
        mirrored: whether left and right are exchanged.
    """

    left: float
    top: float
    side: float
    mirrored: bool

    def of(self, pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The view (height, width, 3) of a photo (H, W, 3), whose *side* of H and of W the view's size is.

        Args:
            pixels: the whole photo, upright.
            size: width and height of the view.
        """
        width, height = size
        x, y = round(self.left * pixels.shape[1]), round(self.top * pixels.shape[0])
        x, y = min(x, pixels.shape[1] - width), min(y, pixels.shape[0] - height)
        seen = pixels[y : y + height, x : x + width]
        return np.ascontiguousarray(seen[:, ::-1] if self.mirrored else seen)


def view_of(number: int, image_id: str) -> View:
    """View *number* (1, 2, …) of the photo *image_id*."""
    side, left, top = np.random.default_rng([number, zlib.crc32(image_id.encode())]).random(3).tolist()
    side = float(np.sqrt(LEAST_AREA + (1 - LEAST_AREA) * side))  # of areas, all are as likely
    return View(left=left * (1 - side), top=top * (1 - side), side=side, mirrored=number % 2 == 1)
