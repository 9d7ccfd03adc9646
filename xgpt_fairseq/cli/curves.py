"""`xgpt-curves`: draw the training curves in fairseq's logs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import check_writable
from xgpt_fairseq.pages.curves import Layout, caption_lines, check_output, draw_curves, write_figure
from xgpt_fairseq.pages.fonts import fonts_for
from xgpt_fairseq.pages.training_log import read_training_log

_EXAMPLE = """\
Several logs are drawn side by side, one column each, with the same vertical axes; --stages draws them one after the
other, as stages of a recipe, and --overlay in the same axes, to compare runs. Where a run was resumed, the later lines
of its log count.

examples:
  fairseq-train DATA … --log-format simple --log-file train.log
  xgpt-curves train.log --output curves.png
  xgpt-curves --stages pre-training=cc.log in-domain=coco-pretrain.log captioning=coco.log --output stages.pdf
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: curves(_parser().parse_args(arguments)))


def curves(args: argparse.Namespace) -> None:
    """Read and draw the logs, and print a summary."""
    check_output(args.output)
    check_writable(args.output, overwrite=args.overwrite)
    check_at_least("--captions", args.captions, 0)
    at = _updates(args.at)
    if at is not None and not args.captions:
        raise DataError("--at says after which updates captions are shown; --captions 0 shows none")
    logs = {name: read_training_log(path) for name, path in named_files(args.logs).items()}
    for name, log in logs.items():
        for last, update in log.restarts:
            print(
                f"{name}: went back from update {last} (a resumed run): from {update} on, the later lines count",
                file=sys.stderr,
            )
    _, lacking = fonts_for("\n".join(caption_lines(logs, args.captions, at)))
    if lacking:
        print(
            f"captions are left out of which no installed font has all characters, such as {min(lacking)!r}; Noto Sans "
            "has, or, for Chinese, Japanese and Korean, Noto Sans CJK",
            file=sys.stderr,
        )
    layout: Layout = "stages" if args.stages else "overlay" if args.overlay else "columns"
    write_figure(draw_curves(logs, layout, images=args.captions, at=at), args.output)
    print(args.output)


def _updates(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise DataError(f"--at {text!r}: numbers of updates, with commas, such as 100,1000,5000")
    return sorted({int(part) for part in text.split(",")})


def named_files(arguments: Sequence[str]) -> dict[str, Path]:
    """Name → file of *arguments*, each `NAME=FILE` or a file.

    A file without a name gets the file's, with as many folders as make it unique: a/train.log and b/train.log are
    "a/train" and "b/train". A path may contain "=" if the file exists (runs/lr=1e-4/train.log).

    Raises:
        DataError: an empty name or file, or two with the same name.
    """
    given: list[tuple[str, Path]] = []
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or Path(argument).exists():
            name, file = "", argument
        elif not name or not file:
            raise DataError(f"{argument!r} is not NAME=LOG")
        given.append((name, Path(file)))
    folders = 0
    while True:
        called = [name or "/".join(path.with_suffix("").parts[-1 - folders :]) for name, path in given]
        if len(set(called)) == len(called):
            return {name: path for name, (_, path) in zip(called, given, strict=True)}
        folders += 1
        if folders > max(len(path.parts) for _, path in given):
            twice = next(name for name in called if called.count(name) > 1)
            raise DataError(f"two logs are called {twice!r}; give each another name, NAME=LOG")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xgpt-curves",
        description="Draw losses and gradient norms by objective, validation scores and the learning rate from "
        "fairseq's training logs.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "logs",
        nargs="+",
        metavar="[NAME=]LOG",
        help="log of fairseq-train with --log-format simple or json, from --log-file or the terminal; without NAME it "
        "has the name of its file",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the figure: .png, .svg or .pdf, by its suffix"
    )
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument(
        "--stages", action="store_true", help="all logs one after the other on one axis, with boundaries"
    )
    layout.add_argument("--overlay", action="store_true", help="all logs in the same axes, each in its own colour")
    parser.add_argument(
        "--captions",
        type=int,
        default=1,
        metavar="N",
        help="also show the captions of N validation images below the curves, where logs have them (%(default)s)",
    )
    parser.add_argument("--at", metavar="UPDATES", help="after which updates, such as 100,1000 [six validations]")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser


if __name__ == "__main__":
    main()
