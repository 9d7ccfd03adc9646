"""Words of languages that do not separate them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.segmentation import segment


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("一只棕色的狗，在草地上。", "一 只 棕 色 的 狗 在 草 地 上"),
        ("穿ＡＢＣ衬衫的T恤 iPhone 12！", "穿 abc 衬 衫 的 t 恤 iphone 12"),
        ("𠮷野家でラーメン", "𠮷 野 家 で ラ ー メ ン"),  # 𠮷 is not in Stanford's tokenizer
        ("วิ่งที่", "วิ่ ง ที่"),  # with their vowels and tones
        ("ခွေး", "ခွေး"),
        ("A dog, running.", "a dog running"),
        ("कुत्ता है।", "कुत्ता है"),
        ("狗🐶跑", "狗 🐶 跑"),
        ("。！", ""),
    ],
)
def test_characters(caption: str, words: str) -> None:
    assert segment([caption], "char") == [words]


@given(st.text(st.sampled_from("ab1 狗草ิ่ที。.-、\u200d🐶\u0301"), max_size=12))
def test_nothing_but_punctuation_is_lost(text: str) -> None:
    kept = [c for c in segment([text], "char")[0] if c not in " 。.-、"]
    assert kept == [c for c in text if c not in " 。.-、"] or "\u0301" in text  # composed by NFKC


def test_jieba_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(DataError, match=r"--segment jieba needs jieba.*pip install \"xgpt-fairseq\[jieba\]\""):
        segment(["狗"], "jieba")


def test_words_of_jieba(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in, which cuts in pairs; beside it the library itself, where it is installed."""
    stand_in = SimpleNamespace(setLogLevel=lambda level: None, cut=lambda text: [text[i : i + 2] for i in (0, 2, 4)])
    monkeypatch.setitem(sys.modules, "jieba", stand_in)
    assert segment(["棕色的狗。", "A b"], "jieba") == ["棕色 的狗", "a b"]


def test_jieba_itself() -> None:
    pytest.importorskip("jieba")
    assert segment(["一只棕色的狗在草地上奔跑。"], "jieba") == ["一只 棕色 的 狗 在 草地 上 奔跑"]
