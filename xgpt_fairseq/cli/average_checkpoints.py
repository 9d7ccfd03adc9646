"""Average the parameters of checkpoints (section 5.3: the mean of the four best).

--best excludes checkpoints from the learning rate warm-up (their --warmup-updates).
--validate runs the run's validation on the average, and warns if the average is worse than its best member, or if none
of them was validated, so that there is nothing to compare with.

example:
    xgpt-average-checkpoints --checkpoints checkpoints/coco --best 4 --output checkpoints/coco/averaged.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser, refuse_options
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write

if TYPE_CHECKING:
    from xgpt_fairseq.averaging import Choice


def program() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, metavar="SAVE_DIR", help="fairseq-train's --save-dir")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--best", type=int, metavar="N", help="the N best by the run's --best-checkpoint-metric")
    choice.add_argument("--last-epochs", type=int, metavar="N", help="checkpoint<epoch>.pt, the N last")
    choice.add_argument("--last-updates", type=int, metavar="N", help="checkpoint_<epoch>_<updates>.pt, the N last")
    choice.add_argument("--inputs", type=Path, nargs="+", action="extend", metavar="FILE", help="these files")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--allow-fewer", action="store_true", help="average all there are, if they are fewer than N")
    parser.add_argument("--validate", action="store_true", help="compare the average with its best member")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    args = parser.parse_args()
    if args.output.exists() and not args.overwrite:
        raise DataError(f"{args.output} exists; pass --overwrite to replace it")
    if not args.inputs and args.checkpoints is None:
        parser.error("--checkpoints SAVE_DIR is required with --best, --last-epochs and --last-updates")
    if args.inputs:
        refuse_options(parser, args, ("checkpoints", "allow_fewer"), "with --inputs")
    from xgpt_fairseq.averaging import average

    warnings = []
    if args.inputs:
        inputs = args.inputs
        files = [path.resolve() for path in inputs]
        for path, file in zip(inputs, files, strict=True):
            if files.count(file) > 1:
                raise DataError(f"--inputs names {path} twice, which would give it twice the weight of the others")
    else:
        chosen = _choose(args)
        inputs = chosen.paths
        for reason in chosen.left_out:
            print(f"left out: {reason}")
        if len(inputs) < chosen.asked:
            warnings.append(f"{chosen.asked} checkpoints are asked for, {len(inputs)} averaged: {chosen.found}")
    for path in inputs:
        print(path)
    best = _best_member(inputs) if args.validate else None
    if args.validate and best is None:
        warnings.append("--validate: none of the checkpoints was validated, so the average is compared with none")
    with atomic_write(args.output) as aside:  # FILE has its name when all that was asked for is done
        average(inputs, aside)
        if best is not None:
            warnings += _compared(aside, best)
    print(f"average of {len(inputs)} written to {args.output}")
    for warning in warnings:  # at the end, below the progress
        print(f"warning: {warning}", file=sys.stderr)


@dataclass(frozen=True)
class _Best:
    """The best of the averaged checkpoints, by the metric that its run chose the best by."""

    path: Path
    value: float
    metric: str
    maximize: bool


def _best_member(paths: Sequence[Path]) -> _Best | None:
    """The best of *paths*; None where none was validated, as after a training with --disable-validation."""
    from xgpt_fairseq.checkpoints import load_checkpoint

    states = {path: load_checkpoint(path) for path in paths}
    values = {path: state.get("extra_state", {}).get("val_loss") for path, state in states.items()}
    known = {path: float(value) for path, value in values.items() if value is not None}
    if not known:
        return None
    options = states[paths[0]]["cfg"]["checkpoint"]
    metric, maximize = options["best_checkpoint_metric"], bool(options["maximize_best_checkpoint_metric"])
    best = (max if maximize else min)(known, key=lambda path: known[path])
    return _Best(best, known[best], metric, maximize)


def _compared(average: Path, best: _Best) -> list[str]:
    """Print the metric of the average and of its best member. Returns a warning if the average is worse."""
    from xgpt_fairseq.metrics.validation import validation_metric

    own = validation_metric(average)
    print(f"{best.metric} of the average: {own:g}; of the best of its members, {best.path.name}: {best.value:g}")
    if own < best.value if best.maximize else own > best.value:
        return [f"the average is worse than {best.path} ({best.metric} {own:g}, {best.value:g})"]
    return []


def _choose(args: argparse.Namespace) -> Choice:
    from xgpt_fairseq.averaging import best_checkpoints, last_checkpoints

    if args.best is not None:
        return best_checkpoints(args.checkpoints, args.best, allow_fewer=args.allow_fewer)
    by_updates = args.last_updates is not None
    count = args.last_updates if by_updates else args.last_epochs
    return last_checkpoints(args.checkpoints, count, by_updates=by_updates, allow_fewer=args.allow_fewer)


def main() -> None:
    run(program)


if __name__ == "__main__":
    main()
