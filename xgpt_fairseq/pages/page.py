"""A page of images with captions: one HTML file whose script builds what is on the screen, from the data in it.

The page has two kinds of data. What is sorted, searched and counted is one block of JSON, read at once. What only a
visible image needs (its photo, regions, attention) is a line of JSON, in blocks of `BLOCK` lines, read when shown.

Captions, names and labels are untrusted text. The script only ever sets text, never HTML, and the page's content
security policy allows no other script, style or request.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.pages.pictures import Picture
from xgpt_fairseq.pages.rendering import policy_hash, read_template, template

if TYPE_CHECKING:
    from xgpt_fairseq.metrics.caption_errors import Missed, Span, Summary
    from xgpt_fairseq.metrics.cider import NgramValue
    from xgpt_fairseq.word_attention import WordAttention

BLOCK = 25
"""Images of a block of data."""

_BOX_SCALE = 10_000  # boxes are integers of this many parts of the picture
_WEIGHT_SCALE = 65_535  # a word's attention is integers that sum to this
_SCRIPTS = (
    "page_data.js", "looks.js", "page_picture.js", "page_caption.js", "page_card.js", "page_list.js", "page_view.js",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A score of captions, as the page writes it: *scale* times the value, with so many digits."""

    name: str
    scale: float = 100.0
    digits: int = 1


@dataclass(frozen=True)
class SystemHead:
    """A system in the page's head: its name, the corpus's score by metric, and what its captions are like."""

    name: str
    corpus: Mapping[str, float]
    summary: Summary


@dataclass(frozen=True)
class Said:
    """A system's caption of an image.

    Attributes:
        text: the caption.
        scores: of this caption by metric.
        words: its words, as spans.
        unused: words that no person used; None: there are no people's captions.
        repeated: phrases that repeat.
        missed: objects that it does not name.
        others: other captions of the search, with their scores.
        ngrams: what CIDEr rewards and costs.
        attention: where the model looks.
    """

    text: str
    scores: Mapping[str, float]
    words: Sequence[Span]
    unused: Sequence[Span] | None = None
    repeated: Sequence[Span] = ()
    missed: Sequence[Missed] = ()
    others: Sequence[tuple[str, float]] = ()
    ngrams: Sequence[NgramValue] = ()
    attention: WordAttention | None = None


@dataclass(frozen=True)
class Credit:
    """Under which licence a photo is shown, and where it is from. The links are http or https."""

    text: str
    url: str | None = None
    licence: str | None = None
    licence_url: str | None = None


@dataclass(frozen=True)
class Card:
    """An image on the page.

    Attributes:
        image_id: identifies it, in the page's address.
        position: its place in the split.
        name: what it is called.
        picture: its picture.
        said: a caption of each system.
        people: people's captions.
        unlike: whether the image looks unlike the model's training images.
        credit: of its photo.
    """

    image_id: str
    position: int
    name: str
    picture: Picture
    said: Sequence[Said]
    people: Sequence[str] = ()
    unlike: bool = False
    credit: Credit | None = None


@dataclass(frozen=True)
class PageHead:
    """What stands above the images.

    Attributes:
        title: of the page.
        systems: whose captions it has.
        metrics: the scores of captions; the first one is what they are sorted by at first.
        images: how many there are in the split.
        counted: what the head's numbers are of, in words.
        note: a line about the page.
        unreadable: files that could not be read, and why.
        linked: whether photos are beside the page.
        overlay: whether regions are drawn over photos, with a switch.
    """

    title: str
    systems: Sequence[SystemHead]
    metrics: Sequence[Metric]
    images: int
    counted: str
    note: str = ""
    unreadable: Sequence[tuple[str, str]] = field(default_factory=tuple)
    linked: bool = False
    overlay: bool = False


def render_page(head: PageHead, cards: Sequence[Card], *, what: str) -> Iterator[str]:
    """Render the page, in pieces, since thousands of photos are a hundred megabytes.

    Args:
        head: what stands above the images.
        cards: the images, in the order in which they are shown at first.
        what: the page's name, for the error if jinja2 is missing.

    Raises:
        DataError: jinja2 is not installed.
    """
    script = '"use strict";\n' + "".join(map(read_template, _SCRIPTS))
    style = "".join(map(read_template, ("gallery.css", "looks.css", "page.css")))
    page = template("page.html", what=what, script=script, style=style)
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:" + (" 'self' file:" if head.linked else ""),
            f"style-src 'sha256-{policy_hash(style)}'",
            f"script-src 'sha256-{policy_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )
    metrics = {metric.name: metric for metric in head.metrics}
    measured = [metric for metric in head.metrics if any(metric.name in system.corpus for system in head.systems)]
    by = [m for m in head.metrics if any(m.name in said.scores for card in cards for said in card.said)]
    highest = {m.name: max(s.corpus[m.name] for s in head.systems if m.name in s.corpus) for m in measured}

    def written(metric: str, value: float | None) -> str:
        if value is None:  # it failed for this system
            return "–"
        return f"{value * metrics[metric].scale:.{metrics[metric].digits}f}".replace("-", "−")

    before, after = page.render(
        head=head, policy=policy, measured=measured, by=by, highest=highest, written=written,
        several=len(head.systems) > 1,
        data=_escaped(_data(head, cards)), blocks=_PLACE, has_people=any(card.people for card in cards),
        has_missed=any(said.missed for card in cards for said in card.said), has_unlike=any(c.unlike for c in cards),
        has_attention=any(said.attention is not None for card in cards for said in card.said), images=len(cards),
    ).split(_PLACE)  # fmt: skip
    yield before
    for first in range(0, len(cards), BLOCK):
        lines = "\n".join(_escaped(_details(card)) for card in cards[first : first + BLOCK])
        yield f'<script type="application/x-ndjson" id="block-{first // BLOCK}">{lines}</script>\n'
    yield after


_PLACE = "\0blocks\0"  # a character that no page can have


def _escaped(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element, or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _data(head: PageHead, cards: Sequence[Card]) -> dict[str, Any]:
    return {
        "title": head.title,
        "total": head.images,
        "block": BLOCK,
        "metrics": [[metric.name, metric.scale, metric.digits] for metric in head.metrics],
        "systems": [system.name for system in head.systems],
        "cards": [
            [
                card.image_id,
                card.position,
                card.name if card.name != card.image_id else 0,
                list(card.people),
                [
                    [said.text, [_number(said.scores.get(metric.name)) for metric in head.metrics], _flags(card, said)]
                    for said in card.said
                ],
                card.picture.width,
                card.picture.height,
            ]
            for card in cards
        ],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)


def _flags(card: Card, said: Said) -> int:
    """What can be filtered by: 1 repeats, 2 words that nobody used, 4 objects missed, 8 unlike the training images."""
    return bool(said.repeated) + 2 * bool(said.unused) + 4 * bool(said.missed) + 8 * card.unlike


def _details(card: Card) -> dict[str, Any]:
    """What only a visible image needs; what it does not have is left out."""
    details: dict[str, Any] = {"src": card.picture.source}
    if (regions := card.picture.regions) is not None:
        details["boxes"] = [round(_BOX_SCALE * value) for box in regions.boxes for value in box]
        if any(regions.labels):
            details["labels"] = list(regions.labels)
        if regions.scores:
            details["scores"] = [round(score, 2) for score in regions.scores]
    if not card.picture.proportions_known:
        details["square"] = 1
    if card.credit is not None:
        details["credit"] = [card.credit.text, card.credit.url, card.credit.licence, card.credit.licence_url]
    details["said"] = [_said(said) for said in card.said]
    return details


def _said(said: Said) -> dict[str, Any]:
    place = Utf16(said.text)
    found: dict[str, Any] = {"words": place.spans(said.words)}
    if said.unused:
        found["unused"] = place.spans(said.unused)
    if said.repeated:
        found["repeated"] = place.spans(said.repeated)
    if said.missed:
        found["missed"] = [[missed.label, int(missed.by_people)] for missed in said.missed]
    if said.others:
        found["others"] = [[text, round(score, 3)] for text, score in said.others]
    if said.ngrams:
        found["ngrams"] = [
            [" ".join(each.ngram), round(each.reward, 4), round(each.cost, 4)]
            for each in said.ngrams
            if each.reward or each.cost > 5e-5
        ]
    if said.attention is not None:
        found["looks"] = place.spans([(word.start, word.end) for word in said.attention.words])
        found["weights"] = quantised(said.attention.weights)
    return found


def quantised(weights: Any) -> str:
    """Attention (words, n), whose rows sum to 1, as unsigned 16-bit integers in base64, little-endian, by rows.

    Each row's integers sum to 65 535: they are rounded down, and the rows' remainders go to the largest fractions.
    """
    import numpy as np

    exact = np.asarray(weights, dtype=np.float64) * _WEIGHT_SCALE
    whole = np.floor(exact)
    for row, fractions in zip(whole, exact - whole, strict=True):
        left = max(round(_WEIGHT_SCALE - row.sum()), 0)
        row[np.argsort(-fractions, kind="stable")[:left]] += 1
    return base64.b64encode(whole.astype("<u2").tobytes()).decode()


class Utf16:
    """Places in a text as JavaScript counts them, in units of UTF-16."""

    def __init__(self, text: str) -> None:
        self._units: list[int] | None = None
        if max(text, default="") > "\uffff":
            self._units = [0]
            for character in text:
                self._units.append(self._units[-1] + (2 if character > "\uffff" else 1))

    def spans(self, spans: Sequence[Span]) -> list[int]:
        """start, end, start, end …"""
        places = [place for span in spans for place in span]
        return places if self._units is None else [self._units[place] for place in places]
