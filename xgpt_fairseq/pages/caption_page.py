"""A page of images with their generated captions, for `xgpt-caption --html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xgpt_fairseq.pages.gallery import Picture
from xgpt_fairseq.pages.rendering import template


@dataclass(frozen=True)
class CaptionedPicture:
    """An image on the page: what it is called, what stands for it, and what the model says."""

    name: str
    picture: Picture
    caption: str


def render_captions(
    cards: Sequence[CaptionedPicture], *, title: str, unreadable: Sequence[tuple[str, str]] = ()
) -> str:
    """The page, as HTML: one file, without scripts and links.

    Args:
        cards: the images, in order.
        title: of the page.
        unreadable: files that were no photos, and why.

    Raises:
        DataError: jinja2 is not installed.
    """
    page = template("captions.html", what="the page of captions")
    return page.render(title=title, cards=cards, unreadable=unreadable)
