"""Average the parameters of checkpoints (section 5.3: the mean of the four best).

--best takes checkpoints from after the warm-up of the learning rate alone (their --warmup-updates says when that was).

example:
    xgpt-average-checkpoints --checkpoints checkpoints/coco --best 4 --output checkpoints/coco/averaged.pt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xgpt_fairseq.averaging import Choice, average, best_checkpoints, last_checkpoints
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError


def program() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, metavar="SAVE_DIR", help="fairseq-train's --save-dir")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--best", type=int, metavar="N", help="the N best by the run's --best-checkpoint-metric")
    choice.add_argument("--last-epochs", type=int, metavar="N", help="checkpoint<epoch>.pt, the N last")
    choice.add_argument("--last-updates", type=int, metavar="N", help="checkpoint_<epoch>_<updates>.pt, the N last")
    choice.add_argument("--inputs", type=Path, nargs="+", metavar="FILE", help="these files")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--allow-fewer", action="store_true", help="average what is there if it is less than N")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    args = parser.parse_args()
    if args.output.exists() and not args.overwrite:
        raise DataError(f"{args.output} exists; pass --overwrite to replace it")
    warning = None
    if args.inputs:
        inputs = args.inputs
    else:
        if args.checkpoints is None:
            parser.error("--checkpoints SAVE_DIR is required with --best, --last-epochs and --last-updates")
        chosen = _choose(args)
        inputs = chosen.paths
        for reason in chosen.left_out:
            print(f"left out: {reason}")
        if len(inputs) < chosen.asked:
            warning = f"warning: {chosen.asked} checkpoints are asked for, {len(inputs)} averaged: {chosen.found}"
    for path in inputs:
        print(path)
    average(inputs, args.output)
    print(f"average of {len(inputs)} written to {args.output}")
    if warning:  # at the end, below the progress
        print(warning, file=sys.stderr)


def _choose(args: argparse.Namespace) -> Choice:
    if args.best is not None:
        return best_checkpoints(args.checkpoints, args.best, allow_fewer=args.allow_fewer)
    by_updates = args.last_updates is not None
    count = args.last_updates if by_updates else args.last_epochs
    return last_checkpoints(args.checkpoints, count, by_updates=by_updates, allow_fewer=args.allow_fewer)


def main() -> None:
    run(program)


if __name__ == "__main__":
    main()
