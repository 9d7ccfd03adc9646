"""Fonts for text that matplotlib's own font has not."""

from __future__ import annotations

import pytest
from matplotlib import font_manager

from xgpt_fairseq.pages import fonts
from xgpt_fairseq.pages.fonts import fonts_for

# matplotlib brings a font that has this letter, beside its own, which has not
CIRCLED = "Ⓐ"


def only_latin(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has no other fonts than matplotlib's own, and the one that has boxes for all others."""
    names = ("DejaVu Sans", "Last Resort High-Efficiency")
    found = [entry for entry in font_manager.fontManager.ttflist if entry.name in names]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", found)
    monkeypatch.setattr(fonts, "_fonts", fonts._fonts.__wrapped__)  # what was found before is forgotten


def test_the_own_font_alone_where_it_has_all() -> None:
    assert fonts_for("a dog\né, ж: 1") == (["sans-serif"], frozenset())


def test_another_font_that_has_the_rest() -> None:
    names, lacking = fonts_for(f"a dog {CIRCLED}")
    assert names[0] == "sans-serif" and len(names) == 2 and not lacking


def test_characters_that_no_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    only_latin(monkeypatch)
    assert fonts_for(f"a 狗 {CIRCLED} หมา") == (["sans-serif"], frozenset(f"狗{CIRCLED}หมา"))
