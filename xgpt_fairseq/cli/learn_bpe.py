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
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.text.options import add_text_inputs, text_inputs
from xgpt_fairseq.text.readers import report_log, sentences
from xgpt_fairseq.text.vocabulary import learn_vocabulary


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: learn_bpe(_parser().parse_args(arguments)))


def learn_bpe(args: argparse.Namespace) -> None:
    """Learn and write the vocabulary."""
    if (args.output / "vocabulary.json").exists() and not args.overwrite:
        raise DataError(f"{args.output} already has a vocabulary; pass --overwrite to replace it")
    check_at_least("--symbols", args.symbols, 1)
    inputs, captions = text_inputs(args)
    with tqdm(sentences(inputs, captions), desc="reading", unit=" sentences", unit_scale=True) as progress:
        vocabulary = learn_vocabulary(
            progress,
            args.output,
            bpe=args.bpe,
            symbols=args.symbols,
            workers=args.workers,
            threshold=args.threshold,
        )
    report_log(captions.log)
    print(f"{args.output}: {len(vocabulary.dictionary)} symbols ({args.bpe})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_inputs(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="VOCABULARY", help="folder to write")
    parser.add_argument("--symbols", type=int, default=10000, help="merges, or vocabulary size with sentencepiece")
    parser.add_argument("--bpe", choices=["subword_nmt", "sentencepiece"], default="subword_nmt")
    parser.add_argument("--threshold", type=int, default=0, help="subwords seen less often become <unk>")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize (subword_nmt)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing vocabulary")
    return parser


if __name__ == "__main__":
    main()
