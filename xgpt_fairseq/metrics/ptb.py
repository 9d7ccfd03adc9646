"""Penn Treebank tokenization of captions, which precedes every metric in COCO's evaluation."""

from __future__ import annotations

import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.java import find_java, last_stderr_lines

_JAR = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
_PUNCTUATION = frozenset(ptbtokenizer.PUNCTUATIONS)


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
    """`ptb_tokenize`, which remembers the captions that it has seen: Java takes half a second to start."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, captions: Sequence[str]) -> list[str]:
        """As `ptb_tokenize`."""
        unseen = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        self._known.update(zip(unseen, ptb_tokenize(unseen), strict=True))
        return [self._known[caption] for caption in captions]
