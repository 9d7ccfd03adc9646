"""Plain text → a data directory for text pre-training (the task xgpt_text_pretrain).

Inputs are those of xgpt-learn-bpe: text (UTF-8, one sentence or paragraph per line; .gz, .bz2, .xz; - for the standard
input) and captions (those of the training split). Lines of more than --max-tokens (appendix A.2: 60)
are cut into several sentences. Of the different lines some are held out for validation, and no copy of them is in the
training split. A run that was interrupted resumes when it is started again.

example:
    xgpt-prepare-text --input wiki.en.txt.gz --vocabulary vocabulary --output data/wiki --workers 16
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.data.manifest import MANIFEST, TextManifest, TextSplit
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import interrupted
from xgpt_fairseq.io.resumable import ResumableOutput
from xgpt_fairseq.text.options import add_text_inputs, text_inputs
from xgpt_fairseq.text.readers import BLOCK_BYTES, report_log, telling_why_no_text

if TYPE_CHECKING:
    from xgpt_fairseq.cli.text_encoding import Progress
    from xgpt_fairseq.text.validation_lines import HeldOut
    from xgpt_fairseq.text.vocabulary import Vocabulary

TEXT_FILES = ("*.text.bin", "*.text.idx")
# With more unknown tokens than this, the vocabulary probably does not belong to the text.
MUCH_UNKNOWN = 0.01


def prepare(
    args: argparse.Namespace, inputs: list[Path], captions: CaptionOptions, vocabulary: Vocabulary
) -> tuple[Progress, HeldOut, dict[str, TextSplit]]:
    """Write the data directory. Returns the result of `encode`."""
    from xgpt_fairseq.cli.text_encoding import encode
    from xgpt_fairseq.data.directory import file_crc32
    from xgpt_fairseq.text.vocabulary import FILES as VOCABULARY_FILES

    options: dict[str, Any] = {
        "input": [str(path) for path in inputs],
        "vocabulary": [file_crc32(path) for name in VOCABULARY_FILES if (path := vocabulary.path / name).exists()],
        "max_tokens": args.max_tokens,
        "valid_lines": args.valid_lines,
        "block_bytes": BLOCK_BYTES,
    }
    if captions.named_splits or args.split_files:
        options["splits"] = [f"{split}={path}" for path, split in captions.named_splits.items()] + args.split_files
    for name in ("hold_out", "columns", "answers", "skip_bad", "image_ids", "format"):
        if getattr(args, name) != _parser().get_default(name):  # a journal of an earlier version lacks them
            options[name] = getattr(args, name)
    with ResumableOutput(args.output, options, overwrite=args.overwrite) as unfinished:
        try:
            progress, held_out, splits = encode(
                unfinished,
                inputs,
                captions,
                vocabulary,
                max_tokens=args.max_tokens,
                valid_lines=args.valid_lines,
                workers=args.workers,
            )
            vocabulary.copy_to(unfinished.data)
            manifest = TextManifest(
                splits=splits,
                max_tokens=args.max_tokens,
                dictionary_crc32=file_crc32(unfinished.data / "dict.txt"),
                made_by={
                    "program": "prepare_text.py",
                    "input": [path.name for path in inputs],
                    "lines": progress.lines,
                    "blank": progress.blank,
                    "cut_to_max_tokens": progress.cut,
                    "valid_lines": len(held_out),
                    "copies_of_valid_lines": held_out.copies - len(held_out),
                    "unknown_tokens": progress.unknown,
                },
            )
            manifest.write(unfinished.data)
            unfinished.finish(last=MANIFEST, files=(*TEXT_FILES, *VOCABULARY_FILES))
        except OSError as error:  # a full disk, most likely
            raise interrupted(error, args.output) from error
        except KeyboardInterrupt:
            if unfinished.is_resumable:
                print(f"the same command resumes from {unfinished.folder}", file=sys.stderr)
            raise
    return progress, held_out, splits


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: prepare_text(_parser().parse_args(arguments)))


def prepare_text(args: argparse.Namespace) -> None:
    """Write the data directory of text."""
    from xgpt_fairseq.data.directory import check_replaceable
    from xgpt_fairseq.text.vocabulary import Vocabulary

    check_at_least("--max-tokens", args.max_tokens, 2, "a token and the end of sentence")
    if args.valid_lines < 0:
        raise DataError(f"--valid-lines must be 0 (none) or more, got {args.valid_lines}")
    inputs, captions = text_inputs(args)
    check_replaceable(args.output, "text", overwrite=args.overwrite)
    vocabulary = Vocabulary(args.vocabulary)
    with telling_why_no_text(captions.log):
        progress, held_out, splits = prepare(args, inputs, captions, vocabulary)
    report_log(captions.log)
    for split, counts in splits.items():
        print(f"{split}: {counts.sentences:,} sentences, {counts.tokens:,} tokens")
    copies = held_out.copies - len(held_out)
    print(
        f"of {progress.lines:,} lines {progress.blank:,} are blank, {progress.cut:,} cut to at most {args.max_tokens} "
        f"tokens, {len(held_out):,} held out for validation, {copies:,} left out as copies of those"
    )
    print(f"unknown: {progress.unknown:,} of {progress.tokens:,} tokens ({progress.unknown_share:.3%})")
    if progress.unknown_share > MUCH_UNKNOWN:
        print(
            f"warning: {progress.unknown_share:.1%} of the tokens are unknown to {args.vocabulary}, more than "
            f"{MUCH_UNKNOWN:.0%}: was it learned from text like this, in this language?",
            file=sys.stderr,
        )
    print(f"written to {args.output}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_inputs(parser)
    parser.add_argument("--vocabulary", type=Path, required=True, help="folder from xgpt-learn-bpe, one for all stages")
    parser.add_argument("--output", type=Path, required=True, metavar="DATA", help="data directory to write")
    parser.add_argument("--valid-lines", type=int, default=2000, help="lines held out for validation (2000); 0: none")
    parser.add_argument("--max-tokens", type=int, default=60, help="longest sentence in tokens, with end of sentence")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data directory of text")
    return parser


if __name__ == "__main__":
    main()
