"""Words of captions in languages that do not separate them: characters, or jieba's words for Chinese.

They take the place of PTB tokenization, which would leave "。" in as a word, and leave out what Stanford's tokenizer
does not know: rare Chinese characters, and the vowel signs of Khmer and Burmese.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text.scripts import is_unspaced

SEGMENTATIONS = ("none", "char", "jieba")
# Categories of characters that belong to the one before: marks, and what joins emoji.
_ON_ANOTHER = ("Mn", "Mc", "Me", "Cf")


def segment(captions: Sequence[str], by: str) -> list[str]:
    """Each caption in Unicode's form NFKC, in lower case and without punctuation, its words separated by spaces.

    Args:
        captions: raw text.
        by: `char`, each letter of a script without spaces is a word, with the marks on it; `jieba`, Chinese words.

    Raises:
        DataError: jieba is not installed.
    """
    texts = [unicodedata.normalize("NFKC", caption).lower() for caption in captions]
    if by == "char":
        return [" ".join(_without_punctuation(_characters(text))) for text in texts]
    try:
        import jieba
    except ImportError:
        raise DataError(
            '--segment jieba needs jieba, which is not installed: pip install "xgpt-fairseq[jieba]"'
        ) from None
    jieba.setLogLevel(logging.WARNING)
    return [" ".join(_without_punctuation(jieba.cut(text))) for text in texts]


def _characters(text: str) -> list[str]:
    """Letters of scripts without spaces one by one; of other scripts, runs of letters and digits; other signs alone."""
    words: list[str] = []
    before = ""  # the kind of the character before
    for character in text:
        if character.isspace():
            kind = ""
        elif before and unicodedata.category(character) in _ON_ANOTHER:
            words[-1] += character
            continue
        elif is_unspaced(character):
            kind = "unspaced"
        elif character.isalnum():
            kind = "run"
        else:
            kind = "sign"
        if kind == "run" and before == "run":
            words[-1] += character
        elif kind:
            words.append(character)
        before = kind
    return words


def _without_punctuation(words: Iterable[str]) -> list[str]:
    """*words* that are not blank, and are not of punctuation alone."""
    return [
        word for word in map(str.strip, words) if any(unicodedata.category(character)[0] != "P" for character in word)
    ]
