"""Logs validation's captions of the same few images again and again: how "a man a man" becomes a sentence.

They go into fairseq's log, for `xgpt-curves --captions`; and where fairseq's options ask for it, to TensorBoard
(`--tensorboard-logdir`, under "Text") and to Weights & Biases (`--wandb-project`, a table).
"""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xgpt_fairseq.errors import DataError

logger = logging.getLogger(__name__)


class CaptionLog:
    """The captions of the first images of each split that the first process validates.

    Args:
        count: how many images of a split.
        tensorboard_logdir, wandb_project: fairseq's options; None or empty: not there.

    Raises:
        DataError: TensorBoard is asked for and not installed. (fairseq warns of a missing wandb.)
    """

    def __init__(self, count: int, *, tensorboard_logdir: str | None, wandb_project: str | None) -> None:
        self._count = count
        self._logdir, self._project = tensorboard_logdir, wandb_project
        self._images: dict[str, list[str]] = {}
        self._logged: set[tuple[str, int, str]] = set()
        self._writers: dict[str, Any] = {}
        if count and tensorboard_logdir:
            _summary_writer()

    def add(
        self, split: str, update: int, image_ids: Sequence[str], captions: Sequence[str], people: Sequence[str]
    ) -> None:
        """Log those of a batch's *captions* that are of the fixed images, with the first of *people*'s captions."""
        if not self._count or (torch.distributed.is_initialized() and torch.distributed.get_rank() > 0):
            return
        fixed = self._images.setdefault(split, [])
        rows = []
        for image_id, caption, person in zip(image_ids, captions, people, strict=True):
            if image_id not in fixed and len(fixed) < self._count:
                fixed.append(image_id)
            if image_id in fixed and (split, update, image_id) not in self._logged:
                self._logged.add((split, update, image_id))
                rows.append((image_id, " ".join(caption.split()), " ".join(person.split())))
        for image_id, caption, _ in rows:
            logger.info(f"captions of '{split}' subset | num_updates {update} | image {image_id} | {caption}")
        if rows and self._logdir:
            self._to_tensorboard(split, update, rows)
        if rows and self._project:
            self._to_wandb(split, update, rows)

    def _to_tensorboard(self, split: str, update: int, rows: Sequence[tuple[str, str, str]]) -> None:
        if split not in self._writers:
            self._writers[split] = _summary_writer()(Path(str(self._logdir), split))
        writer = self._writers[split]
        for image_id, caption, person in rows:
            # it shows Markdown, in which captions are to stay text
            text = f"{html.escape(caption)}\n\n*a person:* {html.escape(person)}"
            writer.add_text(f"captions/{image_id}", text, update)
        writer.flush()

    def _to_wandb(self, split: str, update: int, rows: Sequence[tuple[str, str, str]]) -> None:
        try:
            import wandb
        except ImportError:
            return  # of which fairseq has warned
        if wandb.run is None:
            return
        table = wandb.Table(columns=["update", "image", "caption", "a person"])
        for row in rows:
            table.add_data(update, *row)
        wandb.log({f"{split}/captions": table}, step=update)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DataError('--tensorboard-logdir needs tensorboard: pip install "xgpt-fairseq[tensorboard]"') from None
    return SummaryWriter
