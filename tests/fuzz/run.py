"""Mutated inputs for every reader of foreign bytes: python -m tests.fuzz.run [TARGET…] [--mutations 100000] [--seed 0]

Each reader gets small valid files with small damages (`mutations.py`), and has to read them or to end with a
`DataError`, in at most 10 s and 1 GB; what it lets in is checked (`targets.py`). The table says what became of them.
`--show TARGET SEED FOLDER` writes one mutated input, to look at it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fuzz.harness import Outcome, fuzz, one
from tests.fuzz.targets import targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names, or how they begin (default: all)")
    parser.add_argument("--mutations", type=int, default=100_000, help="of all targets together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--show", nargs=3, metavar=("TARGET", "SEED", "FOLDER"), help="write one mutated input")
    args = parser.parse_args()
    logging.disable(logging.INFO)  # fairseq turns on the messages of every library
    known = targets()
    if args.show:
        name, seed, folder = args.show
        Path(folder).mkdir()
        print(one(name, known[name], int(seed), Path(folder)))
        return
    chosen = {name: known[name] for name in known if not args.targets or name.startswith(tuple(args.targets))}
    whole = sum(target.share for target in chosen.values())
    began = time.monotonic()
    first = args.seed * 10_000_000
    with ProcessPoolExecutor(args.jobs) as pool:
        parts = {
            name: pool.submit(_fuzz, name, range(first, first + max(round(args.mutations * target.share / whole), 1)))
            for name, target in chosen.items()
        }
        print(f"{'reader':<32}{'mutations':>10}{'read':>8}{'refused':>9}{'surprises':>11}")
        outcomes = {name: part.result() for name, part in parts.items() if _line(name, part.result())}
    print(_line_of("all", list(outcomes.values())), f"{time.monotonic() - began:.0f} s", sep="\n")
    for name, outcome in outcomes.items():
        for kind, seeds in sorted(outcome.surprises.items(), key=lambda item: -len(item[1])):
            print(f"{name}: {len(seeds)} times (seed {seeds[0]}) {kind}")
    sys.exit(any(outcome.surprises for outcome in outcomes.values()))


def _fuzz(name: str, seeds: range) -> Outcome:
    return fuzz(name, targets()[name], seeds)


def _line(name: str, outcome: Outcome) -> bool:
    print(_line_of(name, [outcome]), flush=True)
    return True


def _line_of(name: str, outcomes: list[Outcome]) -> str:
    surprises = sum(len(seeds) for each in outcomes for seeds in each.surprises.values())
    numbers = [sum(each.count for each in outcomes), sum(each.read for each in outcomes)]
    return f"{name:<32}{numbers[0]:>10}{numbers[1]:>8}{sum(each.refused for each in outcomes):>9}{surprises:>11}"


if __name__ == "__main__":
    main()
