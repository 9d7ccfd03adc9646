"""`xgpt-evaluate`: score the captions of a split with COCO's metrics, or retrieval (`--retrieval`)."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.captions.options import add_caption_options, check_options_count, format_list, read_caption_options
from xgpt_fairseq.captions.pairing import PAIR_BY
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.evaluate_retrieval import RETRIEVAL, add_options, check_options, evaluate_retrieval
from xgpt_fairseq.cli.parser import Parser, refuse_options
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import check_writable, write_jsons
from xgpt_fairseq.metrics.degeneration import degeneration, mean_words
from xgpt_fairseq.metrics.names import METRICS
from xgpt_fairseq.metrics.segmentation import SEGMENTATIONS
from xgpt_fairseq.text.scripts import count_spacing

if TYPE_CHECKING:
    from xgpt_fairseq.captions.base import CaptionFormat, CaptionOptions
    from xgpt_fairseq.captions.references import References
    from xgpt_fairseq.metrics.scores import Scores

_EXAMPLE = """\
example:
  fairseq-generate DATA --user-dir xgpt_fairseq --task xgpt_caption --path checkpoint_best.pt \\
      --gen-subset test --beam 2 --results-path OUT
  xgpt-evaluate OUT/generate-test.txt --references DATA/test.references.json --output scores.json
  xgpt-evaluate captions.jsonl --references dataset_flickr8k.json --split test --metrics CIDEr,BLEU@4
  xgpt-evaluate --retrieval --path retrieval.pt --data DATA --splits valid,test --output recall.json
"""

# An image model that says one caption of so many images has hardly looked at them.
_REPEATED = 0.1
# Captions are degenerate if so many more of them than of people's repeat words, or break off.
_DEGENERATE = 0.2


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: evaluate(_parse(arguments)))


def evaluate(args: argparse.Namespace) -> None:
    """Score, print a table for each file, and write the requested files."""
    if args.retrieval:
        if len(args.output) > 1:
            raise DataError(f"--output {_joined(args.output)}: --retrieval writes one file")
        args.output = args.output[0] if args.output else None
        evaluate_retrieval(args)
        return
    for name, value in {"CAPTIONS": args.captions, "--references": args.references}.items():
        if not value:
            raise DataError(f"{name} is missing: xgpt-evaluate CAPTIONS --references FILE, or --retrieval")
    outputs = {"--output": args.output, "--coco-results": args.coco_results}
    for name, paths in outputs.items():
        if paths and len(paths) != len(args.captions):
            raise DataError(
                f"{name} {_joined(paths)}: {_files(len(paths))} for the scores of {_files(len(args.captions))} with "
                "captions; name one for each"
            )
        for path in paths:
            check_writable(path, overwrite=args.overwrite)
    _check_apart([*args.captions, args.references], [path for paths in outputs.values() for path in paths])
    from xgpt_fairseq.captions.generated import coco_results, read_captions
    from xgpt_fairseq.captions.references import find_references
    from xgpt_fairseq.metrics.scores import score_systems

    # they are of the references and the captions that are scored, of which one may have columns of its own
    options = replace(read_caption_options(args, {}), columns_of_others=True)
    if options.columns or args.answers != "one" or args.image_ids is not None:
        check_options_count(args, _formats([args.references, *args.captions], args.format, options), "file")
    references = find_references(args.references, args.split, name=args.format, options=options)
    systems = [read_captions(path, references, by=args.pair_by, options=options) for path in args.captions]
    for what, times in options.log.counts.items():
        print(f"{times} {what}", file=sys.stderr)
    for message in options.log.bad:
        print(f"left out (--skip-bad): {message}", file=sys.stderr)
    metrics = [metric.strip() for metric in args.metrics.split(",") if metric.strip()]
    found = score_systems(systems, references, metrics, spice_jars=args.spice_jars, segmentation=args.segment)
    written: list[tuple[Path, Any]] = []
    for number, (path, captions, scores) in enumerate(zip(args.captions, systems, found, strict=True)):
        if not scores.corpus:
            raise DataError("; ".join(f"{metric} left out: {reason}" for metric, reason in scores.left_out.items()))
        if len(systems) > 1:
            print(path)
        different = len(set(captions.values()))
        for warning in warnings(captions, references, scores, args.segment):
            print(f"warning: {warning}", file=sys.stderr)
        print(_table(scores, different))
        for metric, reason in scores.left_out.items():
            print(f"{metric} left out: {reason}", file=sys.stderr)
        if args.output:
            written.append((args.output[number], _report(scores, captions)))
        if args.coco_results:
            written.append((args.coco_results[number], coco_results(captions)))
    write_jsons(written)


def _formats(paths: Sequence[Path], name: str, options: CaptionOptions) -> list[tuple[Path, CaptionFormat]]:
    """Those of *paths*, the first of which are the references, that are caption files; with their formats."""
    from xgpt_fairseq.captions.base import CaptionFile
    from xgpt_fairseq.captions.registry import FORMATS, find_format

    found = [(path, find_format(CaptionFile(path, options.columns))) for path in paths if path.exists()]
    if name != "auto" and found:
        found[0] = (found[0][0], FORMATS[name])
    return [(path, of_path) for path, of_path in found if of_path is not None]


def _joined(paths: Sequence[Path]) -> str:
    return " ".join(map(str, paths))


def _check_apart(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse outputs that would replace each other, or what is scored.

    Raises:
        DataError: one is named twice, or is an input.
    """
    read, written = ([path.resolve() for path in paths] for paths in (inputs, outputs))
    for path, place in zip(outputs, written, strict=True):
        if written.count(place) > 1:
            raise DataError(f"{path} is named twice: each --output and --coco-results needs a file of its own")
        if place in read:
            raise DataError(f"{path} is read, too; name another file for what is written")


def _files(count: int) -> str:
    return f"{count} file{'s' if count != 1 else ''}"


def warnings(captions: Mapping[str, str], references: References, scores: Scores, segmentation: str) -> Iterator[str]:
    """What makes scores mean less than they seem to."""
    from xgpt_fairseq.captions.references import named

    caption, times = Counter(captions.values()).most_common(1)[0]
    if times > 1 and times >= _REPEATED * len(captions):
        yield f"{times} of {len(captions)} images have the same caption: {caption!r:.80}"
    ours = degeneration(captions.values())
    people = degeneration(caption for of_image in references.captions.values() for caption in of_image)
    for what, share, of_people in (
        ("have two successive words twice", ours.repeats, people.repeats),
        ('end in "a", "of" and the like', ours.bad_ends, people.bad_ends),
    ):
        if share > of_people + _DEGENERATE:
            yield f"{100 * share:.0f} % of the captions {what}, {100 * of_people:.0f} % of the references"
    blank = [image_id for image_id, caption in captions.items() if not caption.strip()]
    if blank:
        yield f"{named(blank)} of {len(captions)} with a blank caption, scored as such"
    if "CIDEr" in scores.corpus:
        if len(captions) == 1:
            yield "CIDEr of a single image is 0 by definition: words count by how few images have them"
        elif len({frozenset(of_image) for of_image in references.captions.values()}) == 1:
            yield "all images have the same references: CIDEr is 0 by definition, as no word tells images apart"
    spacing = count_spacing(caption for of_image in references.captions.values() for caption in of_image)
    if segmentation == "none" and spacing.joins_words:
        yield (
            "the captions have no spaces between words, so that each is scored as one word: --segment char (or jieba, "
            "of Chinese) is what papers report"
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; those that would do nothing are refused."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.retrieval:
        refuse_options(parser, args, set(vars(args)) - {*RETRIEVAL, "output", "overwrite"}, "with --retrieval")
    check_options(parser, args)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xgpt-evaluate",
        description="Score the captions of a split as COCO's evaluation does (pycocoevalcap, PTB tokenization), or the "
        "retrieval of images and captions.",
        epilog=f"{format_list()}\n\n{_EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "captions",
        type=Path,
        nargs="*",
        metavar="CAPTIONS",
        help="fairseq-generate's output (generate-test.txt), COCO results, a table, JSON lines or JSON of names and "
        "captions, or a caption a line in the order of the references; its content tells which. Several files are "
        "scored one by one, in less time",
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="FILE",
        help="the human captions: DATA/<split>.references.json, or captions in any of the formats below",
    )
    parser.add_argument("--split", help="which images, where the references have several splits")
    add_caption_options(parser, "the references")
    parser.add_argument(
        "--pair-by",
        choices=PAIR_BY,
        default="auto",
        help="which name of an image counts where a file's name and an id fit different ones: file or id",
    )
    parser.add_argument(
        "--metrics",
        default=",".join(METRICS),
        metavar="LIST",
        help="what to compute, also by the names of the results: CIDEr,BLEU@4 (default: %(default)s)",
    )
    parser.add_argument(
        "--segment",
        choices=SEGMENTATIONS,
        default="none",
        help="words of languages without spaces, in captions and references, in place of PTB tokenization: char, each "
        "letter; jieba, Chinese words (default: none)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write all scores, of the corpus and of each image, as JSON; of several CAPTIONS, an --output for each",
    )
    parser.add_argument(
        "--coco-results",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the captions in the COCO server's format; of several CAPTIONS, one for each",
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


def _table(scores: Scores, different: int) -> str:
    images = len(scores.per_image)
    header = f"scores × 100, {images} image{'s' if images != 1 else ''}, "
    header += f"{different} different caption{'s' if different != 1 else ''}"
    return "\n".join([header, *(f"{name:<8} {100 * value:6.1f}" for name, value in scores.corpus.items())])


def _report(scores: Scores, captions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "images": len(scores.per_image),
        "different_captions": len(set(captions.values())),
        "words": mean_words(captions.values()),
        "degenerate": degeneration(captions.values())._asdict(),
        "scores": scores.corpus,
        "left_out": scores.left_out,
        "per_image": scores.per_image,
    }


if __name__ == "__main__":
    main()
