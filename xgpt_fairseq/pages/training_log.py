"""Reads the numbers in fairseq-train's logs, by update.

The lines of `--log-format simple` and `json` are read, from `--log-file` (bare) or captured from the terminal (with a
prefix of date and logger, in fairseq-train's or hydra's style):

    epoch 002:     14 / 136 loss=17.2, ic_nll_loss=9.409, …, num_updates=150, lr=0.00015, …       while an epoch runs
    epoch 002 | valid on 'valid' subset | loss 4.1 | cider 0.31 | … | num_updates 272             after a validation
    epoch 002 | loss 5.2 | ic_nll_loss 4.87 | … | num_updates 272 | lr 0.00027 | …                 the means of an epoch
    {"epoch": 2, "update": 1.1, "loss": "17.2", …, "num_updates": "150"}                          json: the same three,
    {"epoch": 2, "valid_loss": "4.1", "valid_cider": "0.31", …, "valid_num_updates": "272"}       told apart by their
    {"epoch": 2, "train_loss": "5.2", …, "train_num_updates": "272"}                              names

and validation's captions of a few images (`tasks/caption_log.py`):

    captions of 'valid' subset | num_updates 272 | image 42 | a man riding a horse
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from xgpt_fairseq.errors import DataError

Series = dict[int, float]
"""Number of updates → value, in the order of the updates."""

# Anything may precede a record. Greedy, so that of two records in one line (the first truncated when its process was
# killed) the last, complete one is read.
_STEP = re.compile(r".*epoch \d+: +\d+ / \d+ (\S.*)$")
_SUMMARY = re.compile(r".*epoch \d+ \| (?:valid on '(?P<subset>[^|]+)' subset \| )?(?P<values>\S.*)$")
_CAPTION = re.compile(r".*captions of '([^|]+)' subset \| num_updates (\d+) \| image (.*?) \| (.*)$")
_JSON = re.compile(r'.*(\{"epoch": [^{}]*\})\s*$')

_UPDATES = "num_updates"


@dataclass
class TrainingLog:
    """The values of one log; each mapping is from a name (as fairseq prints it, `ic_nll_loss`, `lr`, …) to `Series`.

    Attributes:
        path: the file.
        steps: training lines, each the mean since the previous line (fairseq's `--log-interval`).
        epochs: the means of the epochs.
        valid: subset → the values of its validations.
        captions: subset → image → number of updates → caption, of images whose captions validation logged.
        restarts: (from, back to): where the run was resumed from a checkpoint. Earlier lines of later updates are
            dropped; of the same update, the later line counts.
    """

    path: Path
    steps: dict[str, Series] = field(default_factory=dict)
    epochs: dict[str, Series] = field(default_factory=dict)
    valid: dict[str, dict[str, Series]] = field(default_factory=dict)
    restarts: list[tuple[int, int]] = field(default_factory=list)
    captions: dict[str, dict[str, dict[int, str]]] = field(default_factory=dict)

    @property
    def last_update(self) -> int:
        """The largest number of updates in a line."""
        return max(update for values in self._all() for series in values.values() for update in series)

    def _all(self) -> list[dict[str, Series]]:
        return [self.steps, self.epochs, *self.valid.values()]

    def _forget_after(self, update: int) -> None:
        for values in self._all():
            for name, series in values.items():
                values[name] = {at: value for at, value in series.items() if at <= update}
        for images in self.captions.values():
            for image, said in images.items():
                images[image] = {at: caption for at, caption in said.items() if at <= update}


def read_training_log(path: Path) -> TrainingLog:
    """Read *path*, a log of fairseq-train.

    Lines that are not records are skipped, and so are values that are not numbers ("None" of an objective that has not
    run since the previous line).

    Raises:
        DataError: the file cannot be read, or has no record of training or validation.
    """
    log = TrainingLog(path)
    last = 0
    for kind, subset, record in _records(path):
        if isinstance(record, _Caption):
            log.captions.setdefault(subset, {}).setdefault(record.image, {})[record.update] = record.text
            continue
        update = int(record.pop(_UPDATES))
        if update < last:
            log.restarts.append((last, update))
            log._forget_after(update)
        last = update
        if kind == "valid":
            values = log.valid.setdefault(subset, {})
        elif kind == "step":
            values = log.steps
        else:
            values = log.epochs
        for name, value in record.items():
            values.setdefault(name, {})[update] = value
    if not any(series for values in log._all() for series in values.values()):
        raise DataError(
            f"{path}: no training or validation lines of fairseq-train with --log-format simple or json (from "
            "--log-file, or from the terminal)"
        )
    return log


class _Caption(NamedTuple):
    update: int
    image: str
    text: str


def _records(path: Path) -> Iterator[tuple[str, str, dict[str, float] | _Caption]]:
    """("step", "epoch" or "valid"; subset; name → value) of each record with a number of updates; and captions."""
    try:
        # "replace": terminal output may contain anything, and a record is ASCII except the subset's name.
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if "captions of '" in line and (match := _CAPTION.match(line.rstrip("\n"))):
                    yield "captions", match[1], _Caption(int(match[2]), match[3], match[4])
                elif (
                    "epoch" in line and (found := _record(line.rstrip("\n"))) and 0 <= found[2].get(_UPDATES, -1) < inf
                ):
                    yield found
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _record(line: str) -> tuple[str, str, dict[str, float]] | None:
    if match := _JSON.match(line):
        return _from_json(match[1])
    if match := _STEP.match(line):
        return "step", "", _numbers(item.partition("=")[::2] for item in match[1].split(", "))
    if match := _SUMMARY.match(line):
        values = _numbers(item.partition(" ")[::2] for item in match["values"].split(" | "))
        return ("valid", match["subset"], values) if match["subset"] else ("epoch", "", values)
    return None


def _from_json(text: str) -> tuple[str, str, dict[str, float]] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # numbers of thousands of digits, too
        return None
    prefix = next((name.removesuffix(_UPDATES) for name in content if name.endswith(_UPDATES)), None)
    if prefix is None:
        return None
    values = _numbers((name[len(prefix) :], value) for name, value in content.items() if name.startswith(prefix))
    if not prefix:
        return "step", "", {name: value for name, value in values.items() if name not in ("epoch", "update")}
    subset = prefix.removesuffix("_")
    return ("epoch", "", values) if subset == "train" else ("valid", subset, values)


def _numbers(items: Any) -> dict[str, float]:
    numbers = {}
    for name, value in items:
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers
