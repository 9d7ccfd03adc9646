"""The work of `xgpt-prepare-text`: text as token ids, in blocks that several processes encode, with a journal."""

from __future__ import annotations

import itertools
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.data.indexed_writer import IndexedWriter, ids_dtype
from xgpt_fairseq.data.manifest import TextSplit
from xgpt_fairseq.errors import DataError, NoTextError
from xgpt_fairseq.io.resumable import ResumableOutput
from xgpt_fairseq.io.workers import map_ordered
from xgpt_fairseq.text.readers import Block, read_blocks, total_bytes
from xgpt_fairseq.text.validation_lines import HeldOut
from xgpt_fairseq.text.vocabulary import Vocabulary

JOURNAL_SECONDS = 20.0


@dataclass(frozen=True)
class Encoded:
    """A block of lines as token ids, without the lines that have no token.

    Attributes:
        tokens: (tokens,) ids of all sentences, each with its end of sentence.
        sizes: (sentences,) tokens of each sentence.
        pieces: (lines,) number of sentences of each line.
        hashes: (lines,) uint64 of each line's tokens.
        blank: number of lines without a token.
        unknown: number of tokens that are not in the dictionary.
        crc32: checksum of the block's bytes.
        position: as in `Block`.
    """

    tokens: npt.NDArray[Any]
    sizes: npt.NDArray[np.int32]
    pieces: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    blank: int
    unknown: int
    crc32: int
    position: int


class EncodeBlock:
    """Block → `Encoded`."""

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._dtype = ids_dtype(len(vocabulary.dictionary))
        self._eos = vocabulary.dictionary.eos()
        self._unknown = vocabulary.dictionary.unk()
        self._room = max_tokens - 1

    def __call__(self, block: Block) -> Encoded:
        tokens: list[int] = []
        sizes: list[int] = []
        pieces: list[int] = []
        blank = 0
        for line in block.lines():
            ids = self._vocabulary.encode_list(line)
            count = -(-len(ids) // self._room)
            if not count:
                blank += 1
                continue
            for piece in range(count):  # as equal as possible: a last piece of one token would be useless
                part = ids[len(ids) * piece // count : len(ids) * (piece + 1) // count]
                tokens += part
                tokens.append(self._eos)
                sizes.append(len(part) + 1)
            pieces.append(count)
        all_tokens = np.array(tokens, dtype=self._dtype)
        return Encoded(
            tokens=all_tokens,
            sizes=np.array(sizes, dtype=np.int32),
            pieces=np.array(pieces, dtype=np.int32),
            hashes=_hashes(all_tokens, sizes, pieces),
            blank=blank,
            unknown=int(np.count_nonzero(all_tokens == self._unknown)),
            crc32=zlib.crc32(block.data),
            position=block.position,
        )


def _hashes(tokens: npt.NDArray[Any], sizes: list[int], pieces: list[int]) -> npt.NDArray[np.uint64]:
    """(lines,) uint64, the same on every machine and in every run."""
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])[np.cumsum([0, *pieces])] * tokens.itemsize
    data = memoryview(tokens.tobytes())
    digests = [blake2b(data[begin:end], digest_size=8).digest() for begin, end in itertools.pairwise(ends.tolist())]
    return np.frombuffer(b"".join(digests), dtype="<u8")


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        blocks: number of blocks from `read_blocks`.
        checksum: checksum of their bytes; when a run is resumed, the input up to here must be the same.
        lines, blank, cut: numbers of all lines, of lines without a token, and of lines split into sentences.
        tokens, unknown: numbers of tokens without ends of sentences, and of those that are not in the dictionary.
    """

    blocks: int = 0
    checksum: int = 0
    lines: int = 0
    blank: int = 0
    cut: int = 0
    tokens: int = 0
    unknown: int = 0

    def add(self, encoded: Encoded) -> None:
        self.blocks += 1
        self.checksum = _chained(self.checksum, encoded.crc32)
        self.lines += len(encoded.pieces) + encoded.blank
        self.blank += encoded.blank
        self.cut += int(np.count_nonzero(encoded.pieces > 1))
        self.tokens += len(encoded.tokens) - len(encoded.sizes)
        self.unknown += encoded.unknown

    @property
    def unknown_share(self) -> float:
        return self.unknown / max(self.tokens, 1)


def _chained(checksum: int, crc32: int) -> int:
    return zlib.crc32(crc32.to_bytes(4, "little"), checksum)


def encode(
    run: ResumableOutput,
    inputs: list[Path],
    captions: CaptionOptions,
    vocabulary: Vocabulary,
    *,
    max_tokens: int,
    valid_lines: int,
    workers: int,
) -> tuple[Progress, HeldOut, dict[str, TextSplit]]:
    """Write the token files to `run.data`; return the counts, the held-out lines, and the splits' description.

    Raises:
        DataError: an input is unreadable or has changed, or there is too little text.
    """
    state: dict[str, Any] = run.state or {}
    progress = Progress(**state.get("progress", {}))
    size = len(vocabulary.dictionary)
    held_out = HeldOut(valid_lines, ids_dtype(size), state.get("held_out"))
    blocks = read_blocks(inputs, captions)
    try:
        train = IndexedWriter(run.data / "train.text", vocabulary_size=size, state=state.get("train"))
    except DataError as error:
        raise DataError(f"{error}; delete {run.folder} to start over") from None
    with train, _bar(inputs) as bar:
        if progress.blocks:
            print(f"resuming an interrupted run after {progress.lines:,} lines", file=sys.stderr)
            _skip(blocks, progress, run, bar)
        saved = time.monotonic()
        for encoded in map_ordered(EncodeBlock(vocabulary, max_tokens), blocks, workers, chunk=1):
            for tokens, sizes in held_out.process(encoded.tokens, encoded.sizes, encoded.pieces, encoded.hashes):
                train.add(tokens, sizes)
            progress.add(encoded)
            bar.set_postfix(lines=f"{progress.lines:,}", unknown=f"{progress.unknown_share:.2%}", refresh=False)
            bar.update(encoded.position - bar.n)
            if time.monotonic() - saved >= JOURNAL_SECONDS:
                run.save({"progress": asdict(progress), "train": train.sync(), "held_out": held_out.to_json()})
                saved = time.monotonic()
        try:
            _check_enough(progress, held_out)
        except DataError:
            run.discard_journal()  # other options are needed
            raise
        splits = {"train": _finished(train)}
    if valid_lines:
        with IndexedWriter(run.data / "valid.text", vocabulary_size=size) as valid:
            valid.add(*held_out.sentences())
            splits["valid"] = _finished(valid)
    return progress, held_out, splits


def _bar(inputs: list[Path]) -> tqdm:
    return tqdm(total=total_bytes(inputs), desc="encoding", unit="B", unit_scale=True, smoothing=0.05)


def _skip(blocks: Iterator[Block], progress: Progress, run: ResumableOutput, bar: tqdm) -> None:
    """Reread the finished part without encoding it, and check that it is unchanged."""
    checksum = count = 0
    for block in itertools.islice(blocks, progress.blocks):
        checksum = _chained(checksum, zlib.crc32(block.data))
        count += 1
        bar.update(block.position - bar.n)
    if (count, checksum) != (progress.blocks, progress.checksum):
        raise DataError(
            f"the first {progress.lines} lines of the input are not those of the interrupted run; delete {run.folder} "
            "to start over"
        )


def _check_enough(progress: Progress, held_out: HeldOut) -> None:
    """Check that there are training lines, and at least as many as validation lines."""
    lines = progress.lines - progress.blank
    if not lines:
        raise NoTextError("there is no text in the input")
    left = lines - held_out.copies
    if len(held_out) == held_out.limit and left >= max(held_out.limit, 1):
        return
    advice = (
        f"pass --valid-lines {lines // 50} or so" if lines >= 50 else "pass --valid-lines 0 for no validation split"
    )
    raise DataError(
        f"the text is too small for --valid-lines {held_out.limit}: of its {lines} lines {len(held_out)} different "
        f"ones can be held out, which leaves {left} for training, and at least as many must be left; {advice}"
    )


def _finished(writer: IndexedWriter) -> TextSplit:
    sizes = writer.finish()
    return TextSplit(writer.sentences, writer.tokens, **sizes)
