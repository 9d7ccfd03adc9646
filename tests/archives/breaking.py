"""Archives to be broken, and what their errors are compared with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.archives.layouts import Image, made_up

IMAGES = [made_up(number) for number in range(2, 8)]
THIRD = IMAGES[2]  # COCO_val2014_000000000004, of 5 regions

Fails = Callable[..., str]  # the fixture `fails`


def with_third(line_of: Callable[[Image], str], change: Callable[[str], str]) -> Iterator[str]:
    """The lines of the images, that of the third changed."""
    for image in IMAGES:
        yield change(line_of(image)) if image is THIRD else line_of(image)


def matches(error: str, pattern: str) -> None:
    assert re.search(pattern, error), error
