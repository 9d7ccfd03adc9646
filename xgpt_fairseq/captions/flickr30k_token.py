"""flickr30k-token: the captions of Flickr30k, Flickr8k and Flickr8k-CN, one per line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.json_values import file_name_of, most
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id, is_photo_name

_TOKEN_LINE = re.compile(r"([^\t]+)#(\d{1,18})\t(.*)", re.DOTALL)
# Only behind the name of a photo, so that lines of text are none of these.
_LINE_WITH_BLANK = re.compile(r"(.+?)#(\d{1,18}) (.*)", re.DOTALL)
_NAME_AND_LANGUAGE = re.compile(r"(.+)#[A-Za-z][A-Za-z_-]*")


class _Line(NamedTuple):
    image: str
    number: int
    caption: str


def _parse(text: str) -> _Line | None:
    """A line's image, number and caption; None if it is none."""
    match = _TOKEN_LINE.fullmatch(text) or _LINE_WITH_BLANK.fullmatch(text)
    if match is None:
        return None
    image = match[1]
    language = _NAME_AND_LANGUAGE.fullmatch(image)
    if language is not None and is_photo_name(language[1]):
        image = language[1]
    if match.re is _LINE_WITH_BLANK and not is_photo_name(image):
        return None
    return _Line(image, int(match[2]), match[3])


def recognise(file: CaptionFile) -> bool:
    """Whether most lines are an image, a number and a caption."""
    return most(_parse(line) is not None for line in file.first_lines)


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read Flickr30k's `results_20130124.token` or Flickr8k's `Flickr8k.token.txt`: `1000092795.jpg#0`, tab, caption.

    What is in front of the last `#` is the image, `2258277193_586949ec62.jpg.1` too. The file says no split.
    Flickr8k-CN has a language in between, and a blank in place of the tab: `1000268201_693b08cb0e.jpg#zhc#0 …`.
    """
    path = file.path
    images: dict[str, CaptionedImage] = {}
    numbers: set[tuple[str, int]] = set()
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        where = f"{path}: line {line}"
        parsed = _parse(text)
        if parsed is None:
            options.log.bad_record(DataError(f"{where}: {text[:60]!r} is not IMAGE#NUMBER, a tab and a caption"))
            continue
        image_id, number = canonical_image_id(parsed.image), parsed.number
        if (image_id, number) in numbers:
            raise DataError(f"{where}: caption {number} of image {image_id} is listed twice")
        numbers.add((image_id, number))
        image = images.setdefault(image_id, CaptionedImage(image_id, "", [], file_name_of(parsed.image)))
        image.captions.append(Caption(number, parsed.caption))
    yield from images.values()


FLICKR30K_TOKEN = CaptionFormat(
    "flickr30k-token",
    "lines IMAGE#NUMBER, a tab, a caption: Flickr30k, Flickr8k, Flickr8k-CN",
    recognise,
    read,
    keeps_entities=True,
)
