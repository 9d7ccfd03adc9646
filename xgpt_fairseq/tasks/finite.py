"""Names the images and the objective of a batch whose gradients are not finite.

fairseq then runs the batch again, with hooks that shall find the first NaN, and which fail on models whose modules have
tensors by name. So this second time the batch itself is looked at, and training ends with what is wrong. Not before: on
a GPU every look waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from xgpt_fairseq.data.objective_dataset import batches_of
from xgpt_fairseq.errors import DataError

_MOST_NAMED = 5


class RepeatedBatches:
    """Knows whether a batch is run again within an update."""

    def __init__(self) -> None:
        self._update = -1
        self._seen: dict[tuple[str, ...], list[torch.Tensor]] = {}

    def is_repeated(self, sample: Mapping[str, Any], update: int) -> bool:
        """Whether *sample*, a batch of images, has come before in *update*; of text, never.

        With --update-freq, other captions of the same images may come in one update: items tell them apart.
        """
        if "image_ids" not in sample:
            return False
        if update != self._update:
            self._update = update
            self._seen.clear()
        before = self._seen.setdefault((sample["objective"], *sample["image_ids"]), [])
        repeated = any(torch.equal(items, sample["id"]) for items in before)
        before.append(sample["id"])
        return repeated


def refuse_not_finite(sample: Mapping[str, Any], update: int, *, diverged: bool) -> None:
    """Raise DataError for a batch whose gradients were not finite.

    Args:
        diverged: also where its regions are finite; of half precision, whose range is small, fairseq skips those.
    """
    images, objective = sample["image_ids"], sample["objective"]
    for part in batches_of(sample):
        for name in ("features", "boxes"):
            values = part["net_input"].get(name)
            if values is None:
                continue
            finite = values.isfinite().flatten(1).all(dim=1).tolist()  # (I,)
            if broken := [image for image, good in zip(images, finite, strict=True) if not good]:
                raise DataError(
                    f"update {update + 1}, objective {objective}: the {name} of {_named(broken)} are not finite; the "
                    "region store has changed since it was checked: xgpt-regions verify STORE"
                )
    if diverged:
        raise DataError(
            f"update {update + 1}, objective {objective}: the gradients are not finite, though the regions are "
            f"({_named(images)}): the training has diverged; a lower --lr, a longer warm-up or --clip-norm may help"
        )


def _named(images: list[str]) -> str:
    rest = len(images) - _MOST_NAMED
    return f"image{'s' * (len(images) > 1)} {', '.join(images[:_MOST_NAMED])}{f' and {rest} more' if rest > 0 else ''}"
