"""Tokens of a caption → text, by the symbols in `words.json`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xgpt_runtime import fragile, moses
from xgpt_runtime.descriptions import read_description

FILE = "words.json"
_MOSES, _PIECES = "moses", "pieces"


class Words:
    """The symbols of a vocabulary, and how they are joined.

    Attributes:
        symbols: by their ids.
        eos: the id of the end of a sentence.

    Raises:
        DataError: the file in *folder* is missing, damaged, or of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / FILE
        fields = {"symbols": list, "eos": int, "joined": str, "keeps_fragile": bool}
        value = read_description(file, fields)
        self.symbols: list[str] = value["symbols"]
        self.eos: int = value["eos"]
        self._joined: str = value["joined"]
        self._keeps_fragile: bool = value["keeps_fragile"]

    @property
    def moses(self) -> bool:
        """Whether the symbols are subwords of subword-nmt, joined by Moses' rules; else of sentencepiece."""
        return self._joined != _PIECES

    def text(self, tokens: Iterable[int]) -> str:
        """The text of *tokens*, without the end of the sentence (in lower case)."""
        pieces = [self.symbols[token] for token in tokens if token != self.eos]
        if self._joined == _PIECES:  # of sentencepiece
            return "".join(pieces).replace("\u2581", " ").strip()
        words = (" ".join(pieces) + " ").replace("@@ ", "").split()
        if not self._keeps_fragile:
            return moses.detokenize(words)
        text, parts = fragile.hide(" ".join(words))
        return next(fragile.show([moses.detokenize(text.split())], parts))
