"""The page of `xgpt-caption --serve`: photos are dropped on it, and captioned by the server that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xgpt_fairseq.pages.rendering import policy_hash, read_template, template


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
    script = read_template("captioning.js") + read_template("captioning_server.js")
    style = read_template("gallery.css") + read_template("captioning.css")
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
    )
    return CaptioningPage(html, f"{policy}; frame-ancestors 'none'")
