"""A page of images with their generated captions, for `xgpt-caption --html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.evaluation.gallery import Picture


@dataclass(frozen=True)
class CaptionedPicture:
    """An image on the page: what it is called, what stands for it, and what the model says."""

    name: str
    picture: Picture
    caption: str


def draw_captions(cards: Sequence[CaptionedPicture], *, title: str, unreadable: Sequence[tuple[str, str]] = ()) -> str:
    """The page, as HTML: one file, without scripts and links.

    Args:
        cards: the images, in order.
        title: of the page.
        unreadable: files that were no photos, and why.

    Raises:
        DataError: jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise DataError('pages need jinja2: pip install "xgpt-fairseq[report]"') from None
    files = resources.files("xgpt_fairseq.evaluation") / "templates"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((files / "captions.html").read_text(encoding="utf-8")).render(
        title=title,
        style=Markup((files / "gallery.css").read_text(encoding="utf-8")),
        cards=cards,
        unreadable=unreadable,
    )
