"""Learn a vocabulary (BPE and fairseq dictionary) from text, for all stages of training.

Inputs are plain text files (UTF-8, one sentence per line; .gz, .bz2, .xz; - for the standard input), or captions that
xgpt-prepare-captions reads, of which it takes those of the training split. Where neither the file nor its name says the
split, SPLIT=FILE, --split-files or --hold-out does. Tables and records that are neither are refused.

examples:
    xgpt-learn-bpe --input wiki.en.txt --output vocabulary --symbols 10000
    xgpt-learn-bpe --input results_20130124.token --split-files train=train.txt --output vocabulary
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.text.options import add_text_inputs, text_inputs
from xgpt_fairseq.text.readers import report_log, sentences, telling_why_no_text
from xgpt_fairseq.text.scripts import count_spacing

SAMPLE = 10_000  # sentences of each input that --bpe auto looks at
UNSPACED = 0.1  # share of letters of scripts without spaces, from which on sentencepiece is chosen


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: learn_bpe(_parser().parse_args(arguments)))


def learn_bpe(args: argparse.Namespace) -> None:
    """Learn and write the vocabulary."""
    if (args.output / "vocabulary.json").exists() and not args.overwrite:
        raise DataError(f"{args.output} already has a vocabulary; pass --overwrite to replace it")
    if args.output.exists() and not args.output.is_dir():
        raise DataError(f"{args.output} is a file; a vocabulary is a folder")
    if args.output.is_dir() and any(args.output.iterdir()):
        others = [name for name in ("dataset.json", "store.json", "bundle.json") if (args.output / name).exists()]
        if others or not (args.output / "vocabulary.json").exists():
            raise DataError(f"{args.output} holds other files than a vocabulary's; name a folder of its own")
    check_at_least("--symbols", args.symbols, 1)
    from tqdm import tqdm

    from xgpt_fairseq.text.vocabulary import learn_vocabulary

    inputs, captions = text_inputs(args)
    lines = sentences(inputs, captions)
    bpe = args.bpe
    if bpe == "auto":
        sample, lines = _sample(inputs, captions, lines)
        bpe, reason = choose_bpe(sample)
        if bpe == "sentencepiece" and args.threshold > 0:
            bpe, reason = "subword_nmt", "--threshold is given"
        print(f"--bpe {bpe}: {reason}", file=sys.stderr)
    bar = tqdm(lines, desc="reading", unit=" sentences", unit_scale=True)
    with telling_why_no_text(captions.log), bar as progress:
        vocabulary = learn_vocabulary(
            progress,
            args.output,
            bpe=bpe,
            symbols=args.symbols,
            workers=args.workers,
            threshold=args.threshold,
        )
    report_log(captions.log)
    if vocabulary.symbols < args.symbols:
        what = "merges" if bpe == "subword_nmt" else "symbols"
        print(f"only {vocabulary.symbols} of {args.symbols} {what}: the text gives no more")
    print(f"{args.output}: {len(vocabulary.dictionary)} symbols ({bpe})")


def choose_bpe(sample: Iterable[str]) -> tuple[str, str]:
    """Which BPE suits a text, and why: sentencepiece where a tenth of the letters are of words without spaces."""
    from xgpt_fairseq.text.vocabulary import normalize

    spacing = count_spacing(map(normalize, sample))
    share = f"{spacing.share:.0%} of the letters are of scripts without spaces between words"
    if spacing.share < UNSPACED:
        return "subword_nmt", share
    if spacing.is_separated:
        return "subword_nmt", f"{share}, but spaces separate them"
    return "sentencepiece", f"{share} (Chinese, Japanese, Thai …)"


def _sample(inputs: Sequence[Path], captions: CaptionOptions, lines: Iterator[str]) -> tuple[list[str], Iterator[str]]:
    """The first sentences of each input, and *lines*, of which none is lost: a pipe can be read once."""
    if all(path.is_file() or path.is_dir() for path in inputs):
        sample = [line for path in inputs for line in itertools.islice(sentences([path], captions), SAMPLE)]
        captions.log.clear()  # it is all read again
        return sample, lines
    sample = list(itertools.islice(lines, SAMPLE))
    return sample, itertools.chain(sample, lines)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_inputs(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="VOCABULARY", help="folder to write")
    parser.add_argument(
        "--symbols",
        type=int,
        default=10000,
        help="merges, or vocabulary size with sentencepiece; fewer where the text gives no more (10000)",
    )
    parser.add_argument(
        "--bpe",
        choices=["auto", "subword_nmt", "sentencepiece"],
        default="auto",
        help="auto (default): sentencepiece where the text has no spaces between words (Chinese, Japanese, Thai), else "
        "subword_nmt",
    )
    parser.add_argument("--threshold", type=int, default=0, help="subwords seen less often become <unk>")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize (subword_nmt)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing vocabulary")
    return parser


if __name__ == "__main__":
    main()
