"""Texts of any language come back from subwords as they were, and tags in them are no special symbols."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.text.fragile import has_tag, hide, show
from xgpt_fairseq.text.vocabulary import MASK, Vocabulary, learn_vocabulary, normalize

TEXTS = [
    "หมากำลังวิ่งบนหญ้า", "หมา วิ่ง ที่", "कुत्ता घास पर दौड़ता है।", "ရေကမ ខ្មែរ", "தமிழ் நாய்", "שָׁלוֹם כֶּלֶב", "العَرَبِيَّة كلب",
    "İstanbul'da bir köpek", "🇩🇪🇫🇷 flags", "a family 👨‍👩‍👧.", "❤️ ☀️ 1️⃣", "👍🏽🐶🐱!", "soft\u00adhyphen zero\u200bwidth",
    "日本語の文、です。", "中文（测试）：好！", "一只狗, 一辆车", "한국어 문장입니다", "T恤 and iPhone的", "ɐ ɐb-ɐ",
    "Ω мир naïve",
    "a <start> b", "<unk> x", "the <mask> is", "<s> a </s>", "<pad>.", "a<mask>b", "狗<mask>", "</s></s>",
]  # fmt: skip
BOTH = pytest.mark.parametrize("bpe", ["subword_nmt", "sentencepiece"])


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vocabulary]:
    """Of few merges, and of all that there are: words are torn, and whole."""
    root = tmp_path_factory.mktemp("vocabularies")
    learned = {"subword_nmt": (40, 5000), "sentencepiece": (220, 5000)}
    return {
        f"{bpe} {size}": learn_vocabulary(TEXTS * 3, root / f"{bpe}{size}", bpe=bpe, symbols=size)
        for bpe, sizes in learned.items()
        for size in sizes
    }


def comes_back(vocabulary: Vocabulary, text: str) -> None:
    dictionary = vocabulary.dictionary
    ids = vocabulary.encode_ids(text).tolist()
    special = {dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk(), dictionary.index(MASK)}
    assert not special & set(ids)
    assert vocabulary.decode(dictionary.string([*ids, dictionary.eos()])) == normalize(text)
    assert vocabulary.decode(vocabulary.encode(text)) == normalize(text)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back(vocabularies: dict[str, Vocabulary], text: str) -> None:
    for vocabulary in vocabularies.values():
        comes_back(vocabulary, text)


PARTS = st.sampled_from([word.rstrip(".,!！") for text in TEXTS for word in text.split()])
WORDS = st.lists(PARTS, min_size=1, max_size=3).map("".join)


@given(st.lists(WORDS, min_size=1, max_size=6), st.sampled_from(["", ".", "!", ","]))
def test_any_mixture_comes_back(vocabularies: dict[str, Vocabulary], words: list[str], end: str) -> None:
    for vocabulary in vocabularies.values():
        comes_back(vocabulary, " ".join(words) + end)


def test_tags_that_come_often_are_no_special_symbols(tmp_path: Path) -> None:
    for bpe in ("subword_nmt", "sentencepiece"):
        text = ["a <mask> b", "<s>x</s>", "<unk><pad>", "b<mask>"]
        vocabulary = learn_vocabulary(text * 100, tmp_path / bpe, bpe=bpe, symbols=60)
        for line in text:
            comes_back(vocabulary, line)
        assert vocabulary.dictionary.count[vocabulary.dictionary.index(MASK)] == 1


@given(st.text(st.sampled_from("ab ɐ<>/ส้狗-.'🐶\u200d"), max_size=20))
def test_parts_are_put_back(text: str) -> None:
    text = normalize(text)
    hidden, parts = hide(text)
    assert list(show([hidden], parts)) == [text]
    assert list(show(hidden.split(), parts)) == text.split()
    assert hidden.count("ɐ") == len(parts)
    assert all(c in "ab ɐ<>/-.'" for c in hidden)


def test_which_parts() -> None:
    assert hide('"it\'s a t-shirt," he said') == ('"it\'s a t-shirt," he said', [])
    assert hide("naïve “café” – 5 €, мир’s") == ("naïve “café” – 5 €, мир’s", [])
    assert hide('"t恤-x," (ส้,狗)!') == ('"ɐ-x," (ɐ)!', ["t恤", "ส้,狗"])
    assert hide("a<mask>b <i>c</i> 3<4 > 2") == ("ɐ ɐ 3<4 > 2", ["a<mask>b", "<i>c</i>"])
    assert [has_tag(word) for word in ("<mask>", "a</s>", "<3", "< s >", "狗")] == [True, True, False, False, False]
