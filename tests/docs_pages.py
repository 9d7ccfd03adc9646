"""The commands of the documentation: fenced blocks of bash and Python, page by page.

A block that tests can't run has a line before it that says why, as GitHub and the site don't show it:

    <!-- not run by tests: needs eight GPUs -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAGES += ["examples/own_photos/README.md"]  # the other examples have tests of their own, in tests/examples
MARK = re.compile(r"<!-- not run by tests:(.*)-->")


class Block(NamedTuple):
    """A fenced block: its language, first line and text, and why it is not run, if it is not."""

    language: str
    line: int
    text: str
    reason: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in bash or Python, from above to below."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line == "```":
            language = lines[start][3:]
            marked = MARK.fullmatch(lines[start - 1]) if start else None
            if language in ("bash", "python"):
                text = "\n".join(lines[start + 1 : number]) + "\n"
                yield Block(language, start + 2, text, marked[1].strip() if marked else None)
            start = None
    assert start is None, f"{page}: the block of line {start} has no end"


def options(text: str) -> Iterator[tuple[str, str]]:
    """(program, option) for each long option of our programs and fairseq's in a block of bash."""
    for command in re.sub(r"\\\n", " ", text).splitlines():
        words = re.sub(r"(^|\s)#.*", "", command).split()
        program = next((word for word in words if word.startswith(("xgpt-", "fairseq-"))), None)
        module = next((word for word in words if word.startswith("xgpt_fairseq.cli.")), None)
        if module:
            program = f"xgpt-{module.removeprefix('xgpt_fairseq.cli.').replace('_', '-')}"
        if program:
            first = words.index(module or program)
            for word in words[first + 1 :]:
                if word.startswith("--"):
                    yield program, word.split("=")[0]
