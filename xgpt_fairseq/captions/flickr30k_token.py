"""flickr30k-token: the captions of Flickr30k and Flickr8k, one per line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    caption_text,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id

_TOKEN_LINE = re.compile(r"([^\t]+)#(\d+)\t(.*)", re.DOTALL)


def recognise(file: CaptionFile) -> bool:
    """Whether each line is an image, a number and a caption."""
    return bool(file.first_lines) and all(map(_TOKEN_LINE.fullmatch, file.first_lines))


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read Flickr30k's `results_20130124.token` or Flickr8k's `Flickr8k.token.txt`: `1000092795.jpg#0`, tab, caption.

    The text before the last `#` is the image, also `2258277193_586949ec62.jpg.1`. The file does not give splits.
    """
    path = file.path
    images: dict[str, CaptionedImage] = {}
    numbers: set[tuple[str, int]] = set()
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        where = f"{path}: line {line}"
        match = _TOKEN_LINE.fullmatch(text)
        if match is None:
            raise DataError(f"{where}: {text[:60]!r} is not IMAGE#NUMBER, a tab and a caption")
        image_id, number = canonical_image_id(match[1]), int(match[2])
        if (image_id, number) in numbers:
            raise DataError(f"{where}: caption {number} of image {image_id} is listed twice")
        numbers.add((image_id, number))
        image = images.setdefault(image_id, CaptionedImage(image_id, "", []))
        image.captions.append(Caption(number, caption_text(where, match[3])))
    yield from images.values()


FLICKR30K_TOKEN = CaptionFormat("flickr30k-token", "lines IMAGE#NUMBER, a tab, a caption", recognise, read)
