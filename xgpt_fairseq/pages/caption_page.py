"""A page of images with their generated captions, for `xgpt-caption --html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xgpt_fairseq.pages.gallery import Picture
from xgpt_fairseq.pages.rendering import template


@dataclass(frozen=True)
class CaptionedPicture:
    """An image on the page: its name, its picture, and the model's caption."""

    name: str
    picture: Picture
    caption: str


def render_captions(
    cards: Sequence[CaptionedPicture], *, title: str, unreadable: Sequence[tuple[str, str]] = ()
) -> str:
    """Render the page as one HTML file without scripts and links.

    Args:
        cards: the images, in order.
        title: title of the page.
        unreadable: files that could not be read as photos, and the reasons.

    Raises:
        DataError: jinja2 is not installed.
    """
    page = template("captions.html", what="the page of captions")
    return page.render(title=title, cards=cards, unreadable=unreadable)
