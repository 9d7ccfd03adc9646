"""The page of `xgpt-caption --html`."""

from __future__ import annotations

import sys

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.caption_page import CaptionedPicture, render_captions
from xgpt_fairseq.pages.gallery import Picture


def test_text_is_escaped_and_empty_captions_are_seen() -> None:
    picture = Picture(4, 3, "data:image/jpeg;base64,AAAA")
    cards = [CaptionedPicture("<a>.jpg", picture, "cats & <b>dogs</b>"), CaptionedPicture("b.jpg", picture, "")]
    page = render_captions(cards, title="1 < 2", unreadable=[("<c>.txt", "no <photo>")])
    assert "<title>1 &lt; 2</title>" in page and "<h2>&lt;a&gt;.jpg</h2>" in page
    assert "cats &amp; &lt;b&gt;dogs&lt;/b&gt;" in page and "<b>" not in page and "(empty)" in page
    assert "<li>&lt;c&gt;.txt: no &lt;photo&gt;</li>" in page and "1 file could not be read" in page
    assert "could not be read" not in render_captions(cards, title="t")


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DataError, match=r'the page of captions needs jinja2: pip install "xgpt-fairseq\[report\]"'):
        render_captions([], title="t")
