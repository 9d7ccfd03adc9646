"""The argument parser of `xgpt-caption-lite`: that of all xgpt-… programs (`xgpt_fairseq.cli.parser`)."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from typing import NoReturn

UNRECOGNIZED = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that says what is wrong in one line, and names the option that was perhaps meant.

    argparse prints the usage before it: up to fifteen lines, in which the one that matters is the last.
    """

    def error(self, message: str) -> NoReturn:
        """Print *message* as one line, and where help is.

        Raises:
            SystemExit: with status 2, as argparse's.
        """
        if message.startswith(UNRECOGNIZED):
            given = message.removeprefix(UNRECOGNIZED).split()[0].split("=")[0]
            near = difflib.get_close_matches(given, list(self._options()), n=1)
            message += f" (did you mean {near[0]}?)" if near else ""
        print(f"{self.prog}: error: {message}\n{self.prog} --help lists all options", file=sys.stderr)
        sys.exit(2)

    def _options(self) -> Iterator[str]:
        """All long options, those of subcommands included."""
        for action in self._actions:
            yield from (name for name in action.option_strings if name.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from (name for each in parser._actions for name in each.option_strings)
