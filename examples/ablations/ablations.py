#!/usr/bin/env python
"""Repeat a table of the paper: its rows, several seeds each, through the stage scripts of examples/xgpt_base.

Started again, it skips what is done and goes on with what was interrupted. The table is written anew after every run.

example:
    python examples/ablations/ablations.py table2 --scale demo --data data/coco_mini --seeds 1,2,3 \\
        --rows ic,ic+imlm+ida+tifg
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError

RECIPE = Path(__file__).resolve().parent.parent / "xgpt_base"
OUT_OF_DOMAIN, IN_DOMAIN, FINETUNE, CAPTION = (
    "2_out_of_domain.sh",
    "3_in_domain.sh",
    "4_finetune.sh",
    "5_caption.sh",
)
METRICS = ("CIDEr", "BLEU@4", "METEOR", "SPICE")  # the columns of the paper's tables

# What a stage's script is given at demo scale beside the recipe's own arguments: minutes on two cores.
DEMO_ENVIRONMENT = {"ARCH": "xgpt_demo", "BATCH": "64", "GPU_BATCH": "64", "WORKERS": "0"}
_SMALL = ["--dropout", "0.2", "--label-smoothing", "0.1", "--log-interval", "25", "--log-format", "simple"]
_ENDS = ["--stop-min-lr=-1", "--max-epoch", "0"]  # by --max-update alone
_PRETRAIN = [*_SMALL, *_ENDS, "--captions-per-image", "5", "--save-interval-updates", "300"]
DEMO = {
    OUT_OF_DOMAIN: [*_PRETRAIN, "--lr", "1e-3", "--warmup-updates", "200", "--max-update", "600"],
    IN_DOMAIN: [*_PRETRAIN, "--lr", "5e-4", "--warmup-updates", "50", "--max-update", "300"],
    FINETUNE: [*_SMALL, *_ENDS, "--lr", "5e-4", "--warmup-updates", "50", "--max-update", "300"],
    CAPTION: [],
}


@dataclass(frozen=True)
class Stage:
    """A stage script, with what this row sets for it."""

    script: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of a table: its stages, in order, and the paper's scores (CIDEr, BLEU@4, METEOR, SPICE)."""

    name: str
    stages: tuple[Stage, ...]
    paper: tuple[float, float, float, float]


def _objectives_row(objectives: str, paper: tuple[float, float, float, float], *, in_domain: bool = False) -> Row:
    chosen = {"OBJECTIVES": objectives.replace("+", ",")}
    stages = [Stage(OUT_OF_DOMAIN, chosen)]
    if in_domain:
        stages.append(Stage(IN_DOMAIN, chosen))
    return Row(objectives + (" in domain" if in_domain else ""), (*stages, Stage(FINETUNE)), paper)


ALL = "ic+imlm+ida+tifg"
TABLES: dict[str, list[Row]] = {
    # pre-training objectives, out of domain and then in domain
    "table2": [
        _objectives_row("ic", (116.4, 35.9, 28.2, 21.1)),
        _objectives_row("ic+imlm", (117.7, 36.2, 28.2, 21.2)),
        _objectives_row("ic+ida", (118.1, 36.4, 28.3, 21.3)),
        _objectives_row("ic+tifg", (117.3, 36.0, 28.2, 21.2)),
        _objectives_row(ALL, (118.3, 36.5, 28.4, 21.3)),
        _objectives_row("ic+imlm", (119.1, 36.7, 28.5, 21.5), in_domain=True),
        _objectives_row("ic+ida", (119.2, 36.6, 28.5, 21.6), in_domain=True),
        _objectives_row("ic+tifg", (118.2, 36.4, 28.4, 21.3), in_domain=True),
        _objectives_row(ALL, (120.1, 37.2, 28.6, 21.8), in_domain=True),
    ],
}


def run_row(row: Row, folder: Path, *, seed: int, start: str, environment: Mapping[str, str], demo: bool) -> None:
    """Run the stages of *row* in *folder*, each from the one before; its last writes `scores-test.json` there."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {**os.environ, **(DEMO_ENVIRONMENT if demo else {}), **environment}
    # the scripts call python and fairseq's programs: those of the environment that this program runs in
    shared["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shared |= {"SEED": str(seed), "CHECKPOINTS": str(folder), "DATASET": "captions", "OUT": str(folder)}
    checkpoint = start
    for stage in (*row.stages, Stage(CAPTION)):
        setting = {**shared, "FROM": checkpoint, "CHECKPOINT": checkpoint, **stage.environment}
        arguments = DEMO[stage.script] if demo else []
        with open(folder / f"{Path(stage.script).stem}.log", "a", encoding="utf-8") as log:
            done = subprocess.run(
                ["bash", str(RECIPE / stage.script), *arguments],
                env=setting,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise DataError(f"{row.name}, seed {seed}: {stage.script} failed; see {log.name}")
        name = {OUT_OF_DOMAIN: "out_of_domain", IN_DOMAIN: "captions/in_domain", FINETUNE: "captions/finetune"}
        if stage.script in name:
            checkpoint = str(folder / name[stage.script] / "averaged.pt")


def read_scores(folder: Path) -> dict[str, float] | None:
    """The scores of a finished run, in percent; None where it is not finished."""
    file = folder / "scores-test.json"
    if not file.is_file():
        return None
    return {name: 100 * value for name, value in json.loads(file.read_text(encoding="utf-8"))["scores"].items()}


def table(rows: Sequence[Row], folder: Path, seeds: Sequence[int]) -> str:
    """The table in Markdown: mean ± standard deviation over the finished seeds, and the paper's score behind it."""
    lines = ["| pre-training | seeds | " + " | ".join(METRICS) + " |", "|---" * (2 + len(METRICS)) + "|"]
    for row in rows:
        found = [read_scores(folder / slug(row) / f"seed{seed}") for seed in seeds]
        finished = [scores for scores in found if scores is not None]
        cells = []
        for name, paper in zip(METRICS, row.paper, strict=True):
            values = [scores[name] for scores in finished if name in scores]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append((f"{statistics.mean(values):.1f}{spread}" if values else "–") + f" ({paper})")
        lines.append(f"| {row.name} | {len(finished)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def slug(row: Row) -> str:
    """The name of a row's folder."""
    return row.name.replace(" ", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--scale", choices=["paper", "demo"], default="paper", help="demo: minutes on two cores")
    parser.add_argument(
        "--data", type=Path, metavar="DATA", help="data directory: in domain, and out of domain at demo"
    )
    parser.add_argument("--out-of-domain-data", type=Path, metavar="DATA", help="data directory [--data]")
    parser.add_argument("--start", default="none", metavar="FILE", help="checkpoint that all rows start from [none]")
    parser.add_argument("--rows", help="names of rows, separated by commas [all]")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--output", type=Path, default=Path("ablations"), help="folder for runs and tables")
    args = parser.parse_args()
    rows = TABLES[args.table]
    if args.rows:
        known = {row.name: row for row in rows}
        unknown = [name for name in args.rows.split(",") if name not in known]
        if unknown:
            raise DataError(f"--rows: {args.table} has no row {unknown[0]!r}; it has: {', '.join(known)}")
        rows = [known[name] for name in args.rows.split(",")]
    seeds = [int(seed) for seed in args.seeds.split(",")]
    environment = {}
    if args.data:
        environment["IN_DOMAIN_DATA"] = str(args.data)
        environment["OUT_OF_DOMAIN_DATA"] = str(args.out_of_domain_data or args.data)
    folder = args.output / args.table
    for seed in seeds:  # a whole table of one seed first
        for row in rows:
            run_folder = folder / slug(row) / f"seed{seed}"
            if read_scores(run_folder) is None:
                started = time.monotonic()
                print(f"{row.name}, seed {seed} …", flush=True)
                run_row(
                    row,
                    run_folder,
                    seed=seed,
                    start=args.start,
                    environment=environment,
                    demo=args.scale == "demo",
                )
                print(f"{row.name}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
            (folder / "table.md").write_text(table(rows, folder, seeds), encoding="utf-8")
    print((folder / "table.md").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    run(main)
