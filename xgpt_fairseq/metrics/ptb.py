"""Penn Treebank tokenization of captions, which precedes every metric in COCO's evaluation."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.java import find_java, last_stderr_lines

_JAR = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
_PUNCTUATION = frozenset(ptbtokenizer.PUNCTUATIONS)

# What the tokenizer splits one word after the other. Its rules that look beyond a blank begin with a digit, a bracket,
# a quotation mark or a full stop; of words before a full stop, see `PtbTokenizer`.
_WORD = r"[A-Za-z]+(?:[-'][A-Za-z]+)*"
_OF_WORDS = re.compile(rf"{_WORD}(?: ?,)?(?: {_WORD}(?: ?,)?)*(?: ?\.)?")
_MARKED = re.compile(rf"({_WORD})( ?[,.])?")
_STANDS_ALONE = re.compile(rf"(?<![^ ]){_WORD}(?=[,.]?(?: |$))")
_BEFORE_MARKS = "{0}, and {0} , and {0}. and {0}. The {0}. 5 {0} . {0}."
_WITHOUT_MARKS = "{0} and {0} and {0} and {0} the {0} 5 {0} {0}"


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """Each caption as its lower-case PTB tokens without punctuation, separated by spaces.

    The result is that of pycocoevalcap's `PTBTokenizer`, which writes a temporary file to its own, possibly read-only
    folder; here all captions go through stdin in one run of Java. A line break in a caption becomes a space, and a
    letter with marks on it is the same word however it is written (Unicode's form NFC): models write it in one way.

    Raises:
        DataError: there is no Java, or the tokenizer failed.
    """
    if not captions:
        return []
    java = find_java()
    command = [str(java), "-cp", str(_JAR), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # splitlines() knows all line breaks of the tokenizer (also U+2028), since one line in must be one line out.
    text = unicodedata.normalize("NFC", "".join(" ".join(caption.splitlines()) + "\n" for caption in captions))
    try:
        # "replace": a lone surrogate, which JSON can contain, has no UTF-8.
        run = subprocess.run(command, input=text.encode("utf-8", "replace"), capture_output=True, check=False)
    except OSError as error:
        raise DataError(f"{java} does not run: {error}") from None
    said = last_stderr_lines(run.stderr.decode("utf-8", "replace"))
    if run.returncode != 0:
        raise DataError(f"the PTB tokenizer ({java}, {_JAR.name}) failed with status {run.returncode}: {said}")
    lines = run.stdout.decode("utf-8").removesuffix("\n").split("\n")
    if len(lines) != len(captions):
        raise DataError(f"the PTB tokenizer made {len(lines)} lines of {len(captions)} captions: {said}")
    # Only spaces: a token may contain a no-break space (telephone numbers), as in pycocoevalcap.
    return [" ".join(token for token in line.rstrip().split(" ") if token not in _PUNCTUATION) for line in lines]


class PtbTokenizer:
    """`ptb_tokenize`, which remembers captions and words: Java takes half a second to start.

    Java sees a caption that has a word for the first time, or anything but words (letters, inner hyphens and
    apostrophes), single spaces, commas and a full stop at its end. Other captions are put together from what Java made
    of each word alone: it splits some, such as cannot, wanna and man's.

    The full stop belongs to some words (mr., st., etc., u.), mostly by what follows, be it in the next line. Java also
    has each word between punctuation, where all of this would show; where it does, captions with punctuation behind
    this word are left to Java.
    """

    def __init__(self) -> None:
        self._captions: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._plain: set[str] = set()  # words that punctuation behind them does not change

    def __call__(self, captions: Sequence[str]) -> list[str]:
        """As `ptb_tokenize`."""
        unseen = []
        for caption in dict.fromkeys(captions):
            if caption not in self._captions:
                tokens = self._by_words(caption)
                if tokens is None:
                    unseen.append(caption)
                else:
                    self._captions[caption] = tokens
        if unseen:
            self._ask(unseen)
        return [self._captions[caption] for caption in captions]

    def _by_words(self, caption: str) -> str | None:
        """The tokens of *caption*, if they are known by its words."""
        if not _OF_WORDS.fullmatch(caption):
            return None
        found = _MARKED.findall(caption)
        if not all(word in (self._plain if mark else self._words) for word, mark in found):
            return None
        return " ".join(self._words[word] for word, _ in found)

    def _ask(self, captions: Sequence[str]) -> None:
        """Tokenize *captions*, and each new word of theirs, also in lower case, as models write, in one run of Java."""
        found = (word for text in captions for case in (text, text.lower()) for word in _STANDS_ALONE.findall(case))
        words = [word for word in dict.fromkeys(found) if word not in self._words]
        # zip takes a line for each of its first argument
        tokens = iter(ptb_tokenize([*captions, *words, *map(_BEFORE_MARKS.format, words)]))
        self._captions.update(zip(captions, tokens, strict=False))
        self._words.update(zip(words, tokens, strict=False))
        lines = zip(words, tokens, strict=True)
        self._plain.update(word for word, line in lines if line == _WITHOUT_MARKS.format(self._words[word]))
