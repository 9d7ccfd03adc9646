#!/usr/bin/env python
"""Repeat a table of the paper: its rows, several seeds each, through the stage scripts of examples/xgpt_base.

Stages that rows share are run once. As many runs go at once as there are GPUs (or, without any, cores). Started again,
it skips what is done and goes on with what was interrupted. OUTPUT/TABLE.md and OUTPUT/TABLE.png are written anew.

examples:
    python examples/ablations/ablations.py table3 --scale demo
    python examples/ablations/ablations.py table2 --data data/coco --out-of-domain-data data/cc \\
        --start checkpoints/text/averaged.pt --rows ic,ic+imlm+ida+tifg --seeds 1,2,3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "runner"))

from program import add_options, chosen, quickstart, run_table, split_at_dashes
from tables import TABLES

from xgpt_fairseq.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What follows -- goes to every fairseq-train.",
    )
    parser.add_argument("table", choices=sorted(TABLES))
    add_options(parser)
    parser.add_argument("--data", type=Path, help="data directory in domain [paper: data/coco; demo: drawn scenes]")
    parser.add_argument(
        "--out-of-domain-data", type=Path, metavar="DATA", help="data directory [paper: data/cc; demo: --data]"
    )
    parser.add_argument("--start", default="none", metavar="FILE", help="checkpoint that all rows start from [none]")
    parser.add_argument("--output", type=Path, help="folder for runs and tables [ablations/SCALE/TABLE]")
    own, training = split_at_dashes(sys.argv[1:])
    args = parser.parse_args(own)
    demo, table = args.scale == "demo", TABLES[args.table]
    rows = chosen(table.rows, args.rows, args.table)
    data, out_of_domain = args.data, args.out_of_domain_data
    if demo and data is None:
        scenes = quickstart(prepare_only=True)
        data, out_of_domain = scenes / "captions", out_of_domain or scenes / "web"
    data = data or Path("data/coco")
    out_of_domain = out_of_domain or (data if demo else Path("data/cc"))
    run_table(
        table,
        rows,
        args,
        name=args.table,
        output=(args.output or Path("ablations", args.scale, args.table)).resolve(),
        start=args.start,
        environment={"IN_DOMAIN_DATA": str(data.resolve()), "OUT_OF_DOMAIN_DATA": str(out_of_domain.resolve())},
        training=training,
    )


if __name__ == "__main__":
    run(main)
