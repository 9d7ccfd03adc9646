"""Logs validation's captions of the same few images again and again: how "a man a man" becomes a sentence.

They go into fairseq's log, and its `--log-file` by `programs/training_logs.py`, for `xgpt-curves --captions`; and where
fairseq's options ask for it, to TensorBoard (`--tensorboard-logdir`, under "Text", photos under "Images") and to
Weights & Biases (`--wandb-project`, a table).
"""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    from xgpt_fairseq.vision.photos import PhotoFile

logger = logging.getLogger(__name__)

_LONGER_SIDE = 320  # of photos, in pixels


class CaptionLog:
    """The captions of the first images of each split that the first process validates.

    Args:
        count: how many images of a split.
        tensorboard_logdir, wandb_project: fairseq's options; None or empty: not there.
        photos: a folder, tar or table of the images' photos, for these two; None: captions alone.

    Raises:
        DataError: TensorBoard is asked for and not installed (fairseq warns of a missing wandb); or there are photos
            and neither of the two is asked for.
    """

    def __init__(
        self, count: int, *, tensorboard_logdir: str | None, wandb_project: str | None, photos: str | None = None
    ) -> None:
        if photos is not None and not (count and (tensorboard_logdir or wandb_project)):
            raise DataError(
                "--log-captions-photos: photos are for --tensorboard-logdir and --wandb-project, with --eval-captions"
            )
        self._count = count
        self._path = None if photos is None else Path(photos)
        self._files: dict[str, PhotoFile] = {}
        self._photos: dict[str, Any] = {}
        self._logdir, self._project = tensorboard_logdir, wandb_project
        self._images: dict[str, list[str]] = {}
        self._logged: set[tuple[str, int, str]] = set()
        self._writers: dict[str, Any] = {}
        self._shown: set[str] = set()
        if count and tensorboard_logdir:
            _summary_writer()

    def find_photos(self, split: str, image_ids: Sequence[str]) -> None:
        """Find the photos of all images of a split, if they are asked for, before the training.

        Which of them are logged is known when they are validated: batches have an order of their own.

        Raises:
            DataError: there is none of them, or no Pillow to read them with.
        """
        if self._path is None:
            return
        from xgpt_fairseq.vision.photo_files import find_photos
        from xgpt_fairseq.vision.photo_formats import known_formats

        known_formats()
        files = {photo.image_id: photo for photo in find_photos([self._path])}
        found = {image_id: files[image_id] for image_id in image_ids if image_id in files}
        missing, where = len(image_ids) - len(found), f"--log-captions-photos {self._path}: no photo of"
        if not found:
            raise DataError(f"{where} the {missing} images of split {split!r}, such as {image_ids[0]}.jpg")
        if missing and _is_first_process():
            logger.warning(f"{where} {missing} of the {len(image_ids)} images of split {split!r}")
        self._files |= found

    def _read_photo(self, image_id: str) -> None:
        """Read the photo of an image that is logged, if there is one. The training goes on without it."""
        if image_id not in self._files or image_id in self._photos:
            return
        try:
            self._photos[image_id] = _pixels(self._files[image_id])
        except DataError as error:
            logger.warning(str(error))

    def add(
        self, split: str, update: int, image_ids: Sequence[str], captions: Sequence[str], people: Sequence[str]
    ) -> None:
        """Log those of a batch's *captions* that are of the fixed images, with the first of *people*'s captions."""
        if not self._count or not _is_first_process():
            return
        fixed = self._images.setdefault(split, [])
        rows = []
        for image_id, caption, person in zip(image_ids, captions, people, strict=True):
            if image_id not in fixed and len(fixed) < self._count:
                fixed.append(image_id)
                self._read_photo(image_id)
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
            if image_id in self._photos and image_id not in self._shown:
                self._shown.add(image_id)  # it stays the same
                writer.add_image(f"captions/{image_id}", self._photos[image_id], update, dataformats="HWC")
        writer.flush()

    def _to_wandb(self, split: str, update: int, rows: Sequence[tuple[str, str, str]]) -> None:
        try:
            import wandb
        except ImportError:
            return  # of which fairseq has warned
        if wandb.run is None:
            return
        table = wandb.Table(columns=["update", "image", "photo", "caption", "a person"])
        for image_id, caption, person in rows:
            pixels = self._photos.get(image_id)
            table.add_data(update, image_id, None if pixels is None else wandb.Image(pixels), caption, person)
        wandb.log({f"{split}/captions": table}, step=update)


def _is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _pixels(photo: PhotoFile) -> Any:
    """A small copy of the photo, uint8 (height, width, 3).

    Raises:
        DataError: it cannot be read.
    """
    import numpy as np

    from xgpt_fairseq.vision.photo_formats import known_formats

    formats = known_formats()
    from PIL import Image, ImageOps

    try:
        with Image.open(photo.content(), formats=formats) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
            return np.asarray(upright)
    except DataError:
        raise
    except Exception as error:  # bytes that are damaged fail anywhere in Pillow
        raise DataError(f"--log-captions-photos: {photo.path}: not a readable photo: {error}") from None


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DataError('--tensorboard-logdir needs tensorboard: pip install "xgpt-fairseq[tensorboard]"') from None
    return SummaryWriter
