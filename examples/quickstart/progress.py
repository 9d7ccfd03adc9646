#!/usr/bin/env python
"""Reads a training's output: writes it to a log, and shows updates and losses as one progress bar.

The log is added to, so that it holds the whole of a training that was interrupted. Of a stage that does not end with
its average of checkpoints, the last lines are shown, and the status is 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import deque
from pathlib import Path

from tqdm import tqdm

# what stands behind the bar: validation's scores, each objective's loss (bits per word, or squared error), and the
# reward of CIDEr optimisation
SHOWN = re.compile(r"\b([a-z]+)_(?:nll_loss|mse)[= ]([\d.]+)")
REWARD = re.compile(r"\breward[= ](-?[\d.]+)")
SCORE = re.compile(r"\| valid \|.*\bcider ([\d.]+)")
UPDATES = re.compile(r"\bnum_updates[= ](\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    args = parser.parse_args()
    last: deque[str] = deque(maxlen=15)
    finished = False
    losses: dict[str, str] = {}
    with (
        open(args.log, "a", encoding="utf-8") as log,
        tqdm(total=args.updates, desc=args.name, unit=" updates", dynamic_ncols=True) as bar,
    ):
        for line in sys.stdin:
            log.write(line)
            log.flush()
            last.append(line)
            if line.startswith(("done: ", "average of ")):
                finished = True
                bar.update(args.updates - bar.n)
            if score := SCORE.search(line):
                losses["CIDEr"] = f"{100 * float(score[1]):.1f}"
            if "| train_inner |" in line and (updates := UPDATES.search(line)):
                losses |= dict(SHOWN.findall(line))
                if reward := REWARD.search(line):
                    losses["reward"] = reward[1]
                bar.set_postfix(losses, refresh=False)
                bar.update(int(updates[1]) - bar.n)
    if not finished:
        sys.stderr.writelines(last)
        sys.exit(1)


if __name__ == "__main__":
    main()
