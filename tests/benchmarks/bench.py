"""Ratios of xgpt_fairseq to its peers, each measured by turns in the same run: the median of some rounds, and bounds.

    python -m tests.benchmarks.bench                       # all, some 22 minutes on two cores: `make bench`
    python -m tests.benchmarks.bench training reading --rounds 5

Prints a table in Markdown. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import importlib
import time

from tests.benchmarks import measuring

BENCHMARKS = (
    "training",
    "objectives",
    "loss",
    "generation",
    "small",
    "reading",
    "extraction",
    "processes",
    "scst",
    "rewards",
    "startup",
    "help",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="instead of time by the clock: for one thread, on a machine that other programs use, too",
    )
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(measuring.HEAD)
    for name in args.names or BENCHMARKS:
        for line in measuring.in_a_process(measure, name, args.rounds, args.processor_time, method="spawn"):
            print(line, flush=True)


def measure(name: str, rounds: int, processor_time: bool = False) -> list[measuring.Line]:
    """The lines of one benchmark."""
    if processor_time:
        measuring.clock = time.process_time
    lines: list[measuring.Line] = importlib.import_module(f"tests.benchmarks.bench_{name}").measure(rounds)
    return lines


if __name__ == "__main__":
    main()
