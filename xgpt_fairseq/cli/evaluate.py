"""`xgpt-evaluate`: score the captions of a split with COCO's metrics, or retrieval (`--retrieval`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.generated import read_captions, write_coco_results
from xgpt_fairseq.captions.references import read_references
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.evaluate_retrieval import add_options, evaluate_retrieval
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import check_writable, write_json
from xgpt_fairseq.metrics.scores import METRICS, Scores, score_captions

_EXAMPLE = """\
example:
  fairseq-generate DATA --user-dir xgpt_fairseq --task xgpt_caption --path checkpoint_best.pt \\
      --gen-subset test --beam 2 --results-path OUT
  xgpt-evaluate OUT/generate-test.txt --references DATA/test.references.json --output scores.json
  xgpt-evaluate --retrieval --path retrieval.pt --data DATA --splits valid,test --output recall.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: evaluate(_parser().parse_args(arguments)))


def evaluate(args: argparse.Namespace) -> None:
    """Score, print a table, and write the requested files."""
    captioning = {"CAPTIONS": args.captions, "--references": args.references}
    if args.retrieval:
        for name, value in {**captioning, "--coco-results": args.coco_results}.items():
            if value is not None:
                raise DataError(f"{name} {value} is for captions, not for --retrieval")
        evaluate_retrieval(args)
        return
    for name, value in captioning.items():
        if value is None:
            raise DataError(f"{name} is missing: xgpt-evaluate CAPTIONS --references FILE, or --retrieval")
    for path in filter(None, (args.output, args.coco_results)):
        check_writable(path, overwrite=args.overwrite)
    references = read_references(args.references)
    captions = read_captions(args.captions, references)
    metrics = [metric.strip() for metric in args.metrics.split(",")]
    scores = score_captions(captions, references, metrics, spice_jars=args.spice_jars)
    if not scores.corpus:
        raise DataError("; ".join(f"{metric} left out: {reason}" for metric, reason in scores.left_out.items()))
    print(_table(scores))
    for metric, reason in scores.left_out.items():
        print(f"{metric} left out: {reason}", file=sys.stderr)
    if args.output:
        write_json(args.output, _report(scores))
    if args.coco_results:
        write_coco_results(args.coco_results, captions)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xgpt-evaluate",
        description="Score the captions of a split as COCO's evaluation does (pycocoevalcap, PTB tokenization), or the "
        "retrieval of images and captions.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "captions",
        type=Path,
        nargs="?",
        metavar="CAPTIONS",
        help="fairseq-generate's output (generate-test.txt) or COCO results (JSON); its content tells which",
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="the human captions of the split in COCO's format, DATA/<split>.references.json",
    )
    parser.add_argument(
        "--metrics", default=",".join(METRICS), metavar="LIST", help="what to compute (default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write all scores, of the corpus and of each image, as JSON"
    )
    parser.add_argument(
        "--coco-results", type=Path, metavar="FILE", help="write the captions in the COCO server's format"
    )
    parser.add_argument(
        "--spice-jars",
        type=Path,
        metavar="DIR",
        help="the folder with Stanford CoreNLP 3.6.0's two jars, which SPICE needs (default: pycocoevalcap/spice/lib)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add_options(parser)
    return parser


def _table(scores: Scores) -> str:
    images = len(scores.per_image)
    header = f"scores × 100, {images} image{'s' if images != 1 else ''}"
    return "\n".join([header, *(f"{name:<8} {100 * value:6.1f}" for name, value in scores.corpus.items())])


def _report(scores: Scores) -> dict[str, Any]:
    return {
        "images": len(scores.per_image),
        "scores": scores.corpus,
        "left_out": scores.left_out,
        "per_image": scores.per_image,
    }


if __name__ == "__main__":
    main()
