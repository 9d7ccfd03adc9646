"""The page of `xgpt-caption --serve`, as text; `tests/serving/test_page.py` has it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from html import unescape
from typing import Any

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.captioning_page import CaptioningPage, render_captioning_page


def render(**options: Any) -> CaptioningPage:
    return render_captioning_page(
        **{
            "title": "Captions",
            "beams": range(1, 6),
            "beam": 2,
            "lenpen": 1.0,
            "formats": ["JPEG", "PNG"],
            "max_bytes": 25_000_000,
            "max_pixels": 50_000_000,
            **options,
        }
    )


def test_the_policy_allows_the_page_s_own_script_and_style_alone() -> None:
    page = render()
    for tag in ("script", "style"):
        [source] = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"; {tag}-src 'sha256-{digest}';" in page.policy
    [own] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.html)
    assert f"{unescape(own)}; frame-ancestors 'none'" == page.policy
    assert page.policy.startswith("default-src 'none'; ") and "unsafe" not in page.policy
    assert not re.findall(r'\s(?:style|on\w+)="', page.html)
    assert set(re.findall(r"https?://[^\"'\s]+", page.html)) == {"http://www.w3.org/2000/svg"}


def test_what_it_says() -> None:
    page = render(title="<b>1 & 2</b>", beam=4).html
    assert "<title>&lt;b&gt;1 &amp; 2&lt;/b&gt;</title>" in page and "<h1>&lt;b&gt;1 &amp; 2&lt;/b&gt;</h1>" in page
    assert re.findall(r"<option( selected)?>(\d)</option>", page) == [
        ("", "1"), ("", "2"), ("", "3"), (" selected", "4"), ("", "5"),
    ]  # fmt: skip
    assert "JPEG, PNG; at most 25 MB and 50 megapixels each." in page and 'data-max-bytes="25000000"' in page
    assert 'data-score="log-probability per token"' in page
    assert 'data-score="log-probability divided by the number of tokens to the power of 1.5"' in render(lenpen=1.5).html


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DataError, match=r'the page of --serve needs jinja2: pip install "xgpt-fairseq\[report\]"'):
        render()
