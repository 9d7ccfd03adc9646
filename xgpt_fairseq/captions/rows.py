"""Rows of tables, with quotes as in CSV; and quotes that are wrong, which would make one cell of several rows."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from xgpt_fairseq.errors import DataError

_RULE = "a cell that begins with a quotation mark ends with one, and one within it is written twice"


class _WholeRowError(Exception):
    """A line within a quoted cell is a whole row."""


def quoted_rows(
    path: Path, lines: Iterator[tuple[int, str]], separator: str, is_row: Callable[[str], bool]
) -> Iterator[tuple[int, list[str] | DataError]]:
    """(number of its first line, cells) of each row of CSV; an error in place of a line whose quotes are wrong.

    Behind such a line, reading goes on with the next one.

    Args:
        path: the table, for messages.
        lines: its lines, with their numbers.
        separator: between cells.
        is_row: whether a line is by itself a whole row, one that is never part of a cell.
    """
    row: list[tuple[int, str]] = []  # the lines of the row that is being read
    again: deque[tuple[int, str]] = deque()

    def fed() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            within_cell = bool(row)
            row.append(line)
            if within_cell and is_row(line[1]):
                raise _WholeRowError
            yield f"{line[1]}\n"

    is_open = False  # whether a quote in front has been left out, so that the one which ends it is wrong, too
    while True:
        try:
            for cells in csv.reader(fed(), delimiter=separator, strict=True):
                number, text = row[0]
                if is_open and len(row) == 1 and text.count('"') % 2:
                    is_open = False
                    yield number, DataError(f"{path}: line {number} ends a cell that was left out: {text[:60]!r}")
                else:
                    yield number, cells
                row.clear()
            return
        except _WholeRowError:
            inside, whole = row[-1]
            problem = f"line {inside} would be in a cell, and is a whole row ({whole[:60]!r})"
        except csv.Error as error:
            problem = f"line {row[-1][0]}: {error}"
        number, text = row[0]
        again.extendleft(reversed(row[1:]))
        row.clear()
        is_open = text.count('"') % 2 == 1
        yield number, DataError(f"{path}: the quotes that begin in line {number} are wrong, {problem}; {_RULE}")
