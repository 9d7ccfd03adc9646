"""Which texts have no spaces between words."""

from __future__ import annotations

import pytest

from xgpt_fairseq.text.scripts import count_spacing, is_unspaced


@pytest.mark.parametrize("character", "狗々ひカーｶทิ่ກကཀ𠮷")
def test_scripts_without_spaces(character: str) -> None:
    assert is_unspaced(character)


@pytest.mark.parametrize("character", "aé1 .。，한कж🐶\n")
def test_others(character: str) -> None:
    assert not is_unspaced(character)


@pytest.mark.parametrize(
    ("text", "share", "separated"),
    [
        ("A dog runs.", 0.0, False),
        ("", 0.0, False),
        ("一只棕色的狗", 1.0, False),
        ("狗", 1.0, False),
        ("一只 棕色 的 狗", 1.0, True),
        ("หมากำลังวิ่ง บนหญ้าสีเขียวในสวน", 1.0, False),  # Thai has spaces between phrases
        ("หมา กำลัง วิ่ง บน หญ้า", 1.0, True),
        ("개가 잔디 위를 달린다", 0.0, False),
        ("ab狗狗", 0.5, False),
    ],
)
def test_spacing(text: str, share: float, separated: bool) -> None:
    spacing = count_spacing([text])
    assert (spacing.share, spacing.is_separated) == (share, separated)
    assert spacing.joins_words == (share > 0.5 and not separated)
    assert count_spacing([text, text, "A dog."]).is_separated == separated
