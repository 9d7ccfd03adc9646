"""The page of `xgpt-caption --html`: the gallery with one system, of images that nobody has captioned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xgpt_fairseq.pages.page import Card, Metric, PageHead, Said, SystemHead, render_page
from xgpt_fairseq.pages.pictures import Picture

if TYPE_CHECKING:
    from xgpt_fairseq.candidates import Candidate

_SYSTEM = "caption"


@dataclass(frozen=True)
class CaptionedPicture:
    """An image on the page.

    Attributes:
        image_id: identifies it, in the page's address.
        name: what it is called.
        picture: its picture.
        best: its caption.
        others: the other captions of the search, best first.
        unlike: whether it looks unlike the model's training images.
    """

    image_id: str
    name: str
    picture: Picture
    best: Candidate
    others: Sequence[Candidate] = ()
    unlike: bool = False


def render_captions(
    images: Sequence[CaptionedPicture],
    *,
    title: str,
    lenpen: float = 1.0,
    unreadable: Sequence[tuple[str, str]] = (),
    linked: bool = False,
) -> str:
    """Render the page as HTML.

    Args:
        images: at least one, in order.
        title: title of the page.
        lenpen: of the search; it says what the scores are.
        unreadable: files that could not be read as photos, and the reasons.
        linked: whether photos are beside the page.

    Raises:
        DataError: jinja2 is not installed.
    """
    from xgpt_fairseq.metrics.caption_errors import missed_objects, repeated_phrases, summary, word_spans

    score = Metric(score_name(lenpen), scale=1, digits=2)
    cards = []
    for position, image in enumerate(images):
        text = image.best.text
        labels = image.picture.regions.labels if image.picture.regions is not None else ()
        said = Said(
            text,
            {score.name: image.best.score},
            word_spans(text),
            repeated=repeated_phrases(text),
            missed=missed_objects(text, labels),
            others=[(each.text, each.score) for each in image.others],
            attention=image.best.attention,
        )
        cards.append(Card(image.image_id, position, image.name, image.picture, [said], unlike=image.unlike))
    number = len(images)
    mean = {score.name: sum(image.best.score for image in images) / number}
    head = PageHead(
        title,
        [SystemHead(_SYSTEM, mean, summary([image.best.text for image in images], []))],
        [score],
        images=number,
        counted=f"{number} image{'s' if number != 1 else ''}; means",
        unreadable=unreadable,
        linked=linked,
    )
    return "".join(render_page(head, cards, what="the page of captions"))


def score_name(lenpen: float) -> str:
    """What the score of a search is."""
    if lenpen == 1:
        return "log-probability per token"
    return f"log-probability divided by the number of tokens to the power of {lenpen:g}"
