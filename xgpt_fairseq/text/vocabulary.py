"""Vocabulary folders: encode text as token ids, and decode generated tokens.

    dict.txt          fairseq dictionary, `<mask>` included, padded to a multiple of 8
    vocabulary.json   format version; how text is normalised, tokenized and segmented
    bpe.codes         subword-nmt merges, or
    bpe.model         a sentencepiece model

All stages of training share one folder, so that embeddings keep their meaning.
"""

from __future__ import annotations

import collections
import contextlib
import io
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from fairseq.data import Dictionary

from xgpt_fairseq.errors import DataError, NoTextError, foreign_bytes
from xgpt_fairseq.io.atomic import atomic_directory, read_description, write_json
from xgpt_fairseq.io.text_lines import LONGEST_LINE
from xgpt_fairseq.io.workers import map_ordered
from xgpt_fairseq.text import fragile, moses

if TYPE_CHECKING:
    from subword_nmt.apply_bpe import BPE

# Version 2: subword-nmt sees fragile parts of words whole (`fragile.py`). Vocabularies of version 1 go on without.
FORMAT_VERSION = 2
MASK = "<mask>"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", MASK)
FILES = ("dict.txt", "vocabulary.json", "bpe.codes", "bpe.model")


class _Splitter(Protocol):
    """Normalised text to subwords and back."""

    def split(self, text: str) -> list[str]: ...

    def join(self, pieces: str) -> str: ...


class _SubwordNMT:
    """Moses tokens split by subword-nmt merges: `rid@@ ing`."""

    file_name = "bpe.codes"

    def __init__(self, path: Path, version: int) -> None:
        from sacremoses import MosesDetokenizer

        self._detokenizer = MosesDetokenizer(lang="en")
        self._bpe = _open_bpe(path)
        self._pieces = moses.CachedMosesTokenizer(self._split_token)
        self._words = moses.CachedMosesTokenizer() if version > 1 else None

    def split(self, text: str) -> list[str]:
        hidden, parts = fragile.hide(text) if self._words is not None else (text, [])
        if self._words is None or not parts:
            return self._pieces(text)
        words = fragile.show(self._words(hidden), parts)
        return [piece for word in words for piece in self._split_word(word)]

    def _split_word(self, word: str) -> list[str]:
        return _spelled(word) if fragile.has_tag(word) else self._split_token(word)

    def _split_token(self, token: str) -> list[str]:
        if len(self._bpe.cache) > moses.CACHE_SIZE:  # it would grow with the text
            self._bpe.cache.clear()
        return self._bpe.segment_tokens([token])

    def join(self, pieces: str) -> str:
        words = (pieces + " ").replace("@@ ", "").split()
        if self._words is None:
            return self._detokenizer.detokenize(words, unescape=False)
        text, parts = fragile.hide(" ".join(words))
        return next(fragile.show([self._detokenizer.detokenize(text.split(), unescape=False)], parts))


def _open_bpe(path: Path) -> BPE:
    """subword-nmt's splitter, also of a file without merges, which the library refuses."""
    from subword_nmt.apply_bpe import BPE

    # The library tells the standard error what is wrong, and ends the process.
    with foreign_bytes(path), contextlib.redirect_stderr(io.StringIO()) as log:
        text = path.read_bytes().decode("utf-8")
        try:
            bpe = BPE(io.StringIO(text if text.count("\n") > 1 else f"{text}</w> </w>\n"))  # no word has this pair
        except SystemExit:
            raise ValueError(log.getvalue()) from None
        bpe.segment_tokens(["ab"])  # of an unknown version it can do so for no word
    return bpe


def _spelled(word: str) -> list[str]:
    """The letters of *word* as subwords."""
    return [f"{letter}@@" for letter in word[:-1]] + [word[-1]]


class _SentencePiece:
    """Raw text split by a sentencepiece model, without a tokenizer."""

    file_name = "bpe.model"

    def __init__(self, path: Path, version: int) -> None:
        from sentencepiece import SentencePieceProcessor

        with foreign_bytes(path):
            self._model = SentencePieceProcessor(model_proto=path.read_bytes())
            self._model.encode("a", out_type=str)  # of an empty file there is nothing to encode with

    def split(self, text: str) -> list[str]:
        pieces: list[str] = self._model.encode(text, out_type=str)
        if "<" not in text:
            return pieces
        # a piece that would be a special symbol is spelled
        return [part for piece in pieces for part in (piece if piece in _SPECIAL else [piece])]

    def join(self, pieces: str) -> str:
        return pieces.replace(" ", "").replace("\u2581", " ").strip()


_SPLITTERS: dict[str, type[_SubwordNMT] | type[_SentencePiece]] = {
    "subword_nmt": _SubwordNMT,
    "sentencepiece": _SentencePiece,
}


def normalize(text: str) -> str:
    """Normalise to Unicode NFKC, single spaces and lower case (the caption metrics ignore case)."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).lower()


class Vocabulary:
    """A vocabulary folder.

    Attributes:
        path: the folder.
        bpe: `subword_nmt` or `sentencepiece`.
        symbols: merges of the one, symbols of the other.
        keeps_fragile: whether fragile parts of words are kept whole (`fragile`).

    Raises:
        DataError: the folder is not a vocabulary, was written by a newer version, or lacks a file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        file = self.path / "vocabulary.json"
        description = read_description(
            file, what="a vocabulary folder", made_by="xgpt-learn-bpe", newest=FORMAT_VERSION
        )
        if not isinstance(description.get("bpe"), str) or description["bpe"] not in _SPLITTERS:
            raise DataError(f"{file}: bpe is {description.get('bpe')!r}; known are {', '.join(_SPLITTERS)}")
        self.bpe: str = description["bpe"]
        self.symbols: int = description.get("symbols", 0)
        self.keeps_fragile: bool = self.bpe == "subword_nmt" and description["version"] > 1
        splitter = _SPLITTERS[self.bpe]
        for name in ("dict.txt", splitter.file_name):
            if not (self.path / name).is_file():
                raise DataError(f"{self.path / name} is missing; the vocabulary folder is not whole, make it again")
        self._splitter: _Splitter = splitter(self.path / splitter.file_name, description["version"])

    @cached_property
    def dictionary(self) -> Dictionary:
        """The fairseq dictionary; `<mask>` is one of its symbols."""
        with foreign_bytes(self.path / "dict.txt"):
            dictionary = Dictionary.load(str(self.path / "dict.txt"))
        if MASK not in dictionary.indices:
            raise DataError(f"{self.path / 'dict.txt'} has no symbol {MASK}; make it with xgpt-learn-bpe")
        return dictionary

    def encode(self, text: str) -> str:
        """Split text into subwords separated by spaces."""
        return " ".join(self._splitter.split(normalize(text)))

    def decode(self, pieces: str) -> str:
        """Join subwords separated by spaces to detokenized text (in lower case)."""
        return self._splitter.join(pieces)

    def encode_ids(self, text: str) -> np.ndarray:
        """Encode text as token ids int64 (T,), without an end-of-sentence symbol."""
        return np.array(self.encode_list(text), dtype=np.int64)

    def encode_list(self, text: str) -> list[int]:
        """Like `encode_ids`, but a list, for callers that concatenate many short texts."""
        ids, unknown = self._ids, self.dictionary.unk()
        return [ids.get(piece, unknown) for piece in self._splitter.split(normalize(text))]

    @cached_property
    def suppressed_symbols(self) -> list[str]:
        """Symbols that no text has and no search may emit: `<mask>`, `<s>`, and the dictionary's padding."""
        padding = [symbol for symbol in self.dictionary.symbols if symbol.startswith("madeupword")]
        return [MASK, self.dictionary.bos_word, *padding]

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The ids that text can have. Text that spells a special symbol is unknown."""
        special = {*self.dictionary.symbols[: self.dictionary.nspecial], MASK}
        return {symbol: index for symbol, index in self.dictionary.indices.items() if symbol not in special}

    def copy_to(self, folder: Path) -> None:
        """Copy the vocabulary's files into *folder* (a data directory), so that it can decode its captions."""
        for name in ("dict.txt", _SPLITTERS[self.bpe].file_name, "vocabulary.json"):
            if (self.path / name).resolve() != (folder / name).resolve():
                shutil.copyfile(self.path / name, folder / name)


def learn_vocabulary(
    sentences: Iterable[str], output: Path, *, bpe: str, symbols: int, workers: int = 1, threshold: int = 0
) -> Vocabulary:
    """Learn BPE from *sentences*, in one pass, and write a vocabulary folder.

    Args:
        sentences: raw text, one sentence per item.
        output: the folder; an existing vocabulary is replaced when the new one is complete.
        bpe: `subword_nmt` (on Moses tokens) or `sentencepiece` (on raw text).
        symbols: merges for subword-nmt; size of the vocabulary for sentencepiece. Where the text gives no more, it
            has fewer, `Vocabulary.symbols`.
        workers: processes that tokenize (subword-nmt only).
        threshold: subwords seen less often become `<unk>` (subword-nmt only); 0 keeps all that the merges can produce.

    Raises:
        DataError: there is no text, or too little for this number of symbols.
    """
    if bpe == "sentencepiece" and threshold > 0:
        raise DataError("--threshold needs --bpe subword_nmt: a sentencepiece model keeps no counts of its pieces")
    with atomic_directory(output, last="vocabulary.json", files=FILES) as aside:
        _write_vocabulary(aside, sentences, bpe=bpe, symbols=symbols, workers=workers, threshold=threshold)
    return Vocabulary(output)


def _write_vocabulary(
    output: Path, sentences: Iterable[str], *, bpe: str, symbols: int, workers: int, threshold: int
) -> None:
    counts, learned = _LEARNERS[bpe](sentences, output, symbols, workers)
    dictionary = Dictionary()
    # ties in alphabetical order, so that the same text always gives the same dictionary
    for symbol, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count >= threshold:
            dictionary.add_symbol(symbol, n=count)
    dictionary.add_symbol(MASK, n=1)
    dictionary.pad_to_multiple_(8)  # faster on tensor cores
    dictionary.save(str(output / "dict.txt"))
    write_json(
        output / "vocabulary.json",
        {
            "version": FORMAT_VERSION if bpe == "subword_nmt" else 1,
            "normalisation": "NFKC, single spaces, lower case",
            "tokenizer": "moses" if bpe == "subword_nmt" else "none",
            "bpe": bpe,
            "symbols": learned,
        },
    )


# Subword → how often it comes, and how many symbols were learned.
_Learned = tuple[Mapping[str, int], int]


class _Tokenize:
    """Text → Moses tokens, normalised, with fragile parts whole."""

    def __init__(self) -> None:
        self._words = moses.CachedMosesTokenizer()

    def __call__(self, sentence: str) -> list[str]:
        hidden, parts = fragile.hide(normalize(sentence))
        return list(fragile.show(self._words(hidden), parts)) if parts else self._words(hidden)


def _learn_subword_nmt(sentences: Iterable[str], output: Path, symbols: int, workers: int) -> _Learned:
    from subword_nmt.learn_bpe import learn_bpe

    words: collections.Counter[str] = collections.Counter()
    for tokens in map_ordered(_Tokenize(), sentences, workers):
        words.update(tokens)
    if not words:
        raise NoTextError("there is no text to learn a vocabulary from")
    tagged = {word for word in words if fragile.has_tag(word)}
    file = output / "bpe.codes"
    lines = [f"{word} {count}" for word, count in sorted(words.items()) if word not in tagged]
    with open(file, "w", encoding="utf-8") as codes, contextlib.redirect_stderr(io.StringIO()) as log:
        try:
            learn_bpe(lines, codes, symbols, is_dict=True)
        except ValueError:
            pass  # the maximum of no pairs: all are merged, and what was written stands
        except SystemExit as stop:  # the library's way to report bad input
            raise DataError(f"subword-nmt cannot learn merges from this text: {log.getvalue().strip()}") from stop
    merges = [line.split() for line in file.read_text(encoding="utf-8").split("\n")[1:] if line]
    splitter = _open_bpe(file)
    # Every subword the merges can produce, so that unseen words of known characters never become <unk>:
    # each letter and each merge's result, inside a word and at its end.
    counts = collections.Counter(dict.fromkeys((piece for c in set("".join(words)) for piece in (c, f"{c}@@")), 0))
    for first, second in merges:
        whole = first + second
        counts[whole.removesuffix("</w>") if whole.endswith("</w>") else f"{whole}@@"] += 0
    for word, count in words.items():  # words by kind, not by occurrence: a corpus has few kinds
        for piece in splitter.process_line(word).split() if word not in tagged else _spelled(word):
            counts[piece] += count
    return counts, len(merges)


class _Lines:
    """Normalised sentences. Keeps what sentencepiece does not report: an error, and whether there was any sentence."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self._sentences = sentences
        self.count = 0
        self.error: DataError | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for line in filter(None, map(normalize, self._sentences)):
                self.count += 1
                yield line
        except DataError as error:
            self.error = error
            raise


def _learn_sentencepiece(sentences: Iterable[str], output: Path, symbols: int, workers: int) -> _Learned:
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    model = io.BytesIO()
    lines = _Lines(sentences)
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=symbols,
            character_coverage=1.0,
            normalization_rule_name="identity",  # the text is normalised; the model's own rules lose characters
            hard_vocab_limit=False,  # a text that gives no more than fewer symbols has fewer
            max_sentence_length=LONGEST_LINE,  # longer ones would be left out
            num_threads=1,  # the model file names their number: *workers* would change its bytes and nothing else
            unk_piece="\u2581\u2581unk",  # which no text has, as it has single spaces; <unk> in one is text
            bos_id=-1,  # fairseq's dictionary has its own special symbols
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if lines.error is not None:  # an error of the input, not of sentencepiece
            raise lines.error from None
        if lines.count == 0:
            raise NoTextError("there is no text to learn a vocabulary from") from None
        reason = str(error).rsplit("] ", 1)[-1].strip()  # after its source line and condition
        raise DataError(f"sentencepiece cannot learn {symbols} symbols from this text: {reason}") from error
    (output / "bpe.model").write_bytes(model.getvalue())
    learned = SentencePieceProcessor(model_proto=model.getvalue())
    # the model lists its pieces by rank without counts, so the rank serves as frequency
    size = learned.get_piece_size()
    pieces = {learned.id_to_piece(rank): size - rank for rank in range(size) if not learned.is_unknown(rank)}
    return {piece: count for piece, count in pieces.items() if piece not in _SPECIAL}, size


_LEARNERS = {"subword_nmt": _learn_subword_nmt, "sentencepiece": _learn_sentencepiece}
