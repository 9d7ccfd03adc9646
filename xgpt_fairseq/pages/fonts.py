"""Fonts for text of any script in figures: matplotlib's own has no Chinese, Japanese, Korean or Thai."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable

_OWN = "sans-serif"
_PLACEHOLDERS = ("Last Resort", "LastResort")  # fonts that have all characters, each as a box


def fonts_for(text: str) -> tuple[list[str], frozenset[str]]:
    """The fonts that together have the characters of *text*, and the characters that no installed font has.

    Returns:
        tuple: names for matplotlib, its own font first, then as few others as are needed; and these characters.
    """
    return _fonts(frozenset(text) - {" ", "\n"})


@functools.lru_cache(maxsize=4)
def _fonts(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    names, lacking = [_OWN], characters - _characters(findfont(FontProperties(family=[_OWN])), characters)
    if not lacking:
        return names, lacking
    found: dict[str, frozenset[str]] = {}  # what each other font has of them
    for entry in fontManager.ttflist:
        if entry.name not in found and not entry.name.startswith(_PLACEHOLDERS):
            found[entry.name] = _characters(entry.fname, lacking)
    while lacking and found:
        best = max(found, key=lambda name: len(found[name] & lacking))
        if not found[best] & lacking:
            break
        names.append(best)
        lacking -= found.pop(best)
    return names, lacking


def _characters(file: str, wanted: Iterable[str]) -> frozenset[str]:
    """Those of *wanted* that the font in *file* has; none of a font that matplotlib cannot draw."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or of a kind that it cannot read
        return frozenset()
    codes: Collection[int] = font.get_charmap() if font.scalable else ()  # others, of pictures, have sizes of their own
    return frozenset(character for character in wanted if ord(character) in codes)
