"""The page of `xgpt-caption --serve`: photos are dropped on it, and captioned by the server that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from xgpt_fairseq.pages.rendering import policy_hash, read_template, template

# Of this page, and of the one that captions by itself (`standalone_page`).
STYLES: Final = ("gallery.css", "looks.css", "captioning.css")


@dataclass(frozen=True)
class CaptioningPage:
    """The page, and its content security policy for the header. The page's own lacks what only a header can say."""

    html: str
    policy: str


def render_captioning_page(
    *,
    title: str,
    beams: Sequence[int],
    beam: int,
    lenpen: float,
    formats: Sequence[str],
    max_bytes: int,
    max_pixels: int,
) -> CaptioningPage:
    """Render the page. It is the same for everyone: what is captioned stays in the browser.

    Args:
        title: title of the page.
        beams: the beam sizes to choose from.
        beam: the one that is chosen at first.
        lenpen: of the search; it says what the scores are.
        formats: of photos that are read.
        max_bytes: of a file; larger ones are not sent.
        max_pixels: of a photo.

    Raises:
        DataError: jinja2 is not installed.
    """
    script = '"use strict";\n' + "".join(map(read_template, ("looks.js", "captioning.js", "captioning_server.js")))
    style = "".join(map(read_template, STYLES))
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src blob: data:",
            f"style-src 'sha256-{policy_hash(style)}'",
            f"script-src 'sha256-{policy_hash(script)}'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )
    page = template("captioning.html", what="the page of --serve", script=script, style=style)
    html = page.render(
        title=title,
        policy=policy,
        beams=beams,
        beam=beam,
        score="log-probability per token"
        if lenpen == 1
        else f"log-probability divided by the number of tokens to the power of {lenpen:g}",
        formats=formats,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        lenpen=lenpen,
        data={},
        version="",
    )
    return CaptioningPage(html, f"{policy}; frame-ancestors 'none'")
