"""The page of `xgpt-caption --html`."""

from __future__ import annotations

import sys

import pytest

from tests.pages.parsed import is_harmless, page_data, page_details, parsed
from xgpt_fairseq.candidates import Candidate
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.caption_page import CaptionedPicture, render_captions
from xgpt_fairseq.pages.pictures import Picture

PICTURE = Picture(4, 3, "data:image/jpeg;base64,AAAA")


def test_captions_with_their_beams() -> None:
    images = [
        CaptionedPicture(
            "<a>.jpg",
            "<a>.jpg",
            PICTURE,
            Candidate("cats & <b>dogs</b>", 4, -0.5),
            [Candidate("a </script>", 2, -1.25)],
        ),
        CaptionedPicture("b.jpg", "b.jpg", PICTURE, Candidate("", 1, -2.0), unlike=True),
    ]
    page = parsed(render_captions(images, title="1 < 2", unreadable=[("<c>.txt", "no <photo>")]))
    is_harmless(page)
    assert page.all("title")[0].text == "1 < 2"
    data, details = page_data(page), page_details(page)
    assert data["metrics"] == [["log-probability per token", 1, 2]] and len(data["systems"]) == 1
    first, second = data["cards"]
    assert (first["id"], first["people"]) == ("<a>.jpg", [])
    assert first["said"] == [["cats & <b>dogs</b>", [-0.5], 0]] and second["said"] == [["", [-2.0], 8]]
    assert details["<a>.jpg"]["said"][0]["others"] == [["a </script>", -1.25]]
    assert "others" not in details["b.jpg"]["said"][0]
    row = [cell.text for cell in page.all("td")]
    assert row == ["−1.25", "2.0", "3", "0.0 %"]
    assert [item.text for item in page.all("li")] == ["<c>.txt: no <photo>"]
    assert not page.all("option", value="unused") and page.all("option", value="unlike")
    assert not parsed(render_captions(images[:1], title="t")).all("section")


def test_what_the_score_is() -> None:
    page = render_captions([CaptionedPicture("a", "a", PICTURE, Candidate("a", 1, -1.0))], title="t", lenpen=0.5)
    assert page_data(parsed(page))["metrics"][0][0] == (
        "log-probability divided by the number of tokens to the power of 0.5"
    )


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DataError, match=r'the page of captions needs jinja2: pip install "xgpt-fairseq\[report\]"'):
        render_captions([CaptionedPicture("a", "a", PICTURE, Candidate("a", 1, -1.0))], title="t")
