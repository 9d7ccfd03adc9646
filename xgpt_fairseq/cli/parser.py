"""The argument parser of the xgpt-… programs, and options that have no effect in one of a program's modes."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Collection, Iterator
from typing import NoReturn

from xgpt_fairseq.errors import DataError

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


def given_options(parser: argparse.ArgumentParser, args: argparse.Namespace, names: Collection[str]) -> list[str]:
    """Which arguments the user gave, as they are written: `--save-scores`. One given with its default is not noticed.

    Args:
        names: of arguments, as *args* has them: `save_scores`.
    """
    given = []
    for action in parser._actions:
        # argparse's default of a positional argument is None, where none is given [], too
        if action.dest in names and getattr(args, action.dest) not in (parser.get_default(action.dest), []):
            given.append(action.option_strings[-1] if action.option_strings else str(action.metavar))
    return given


def refuse_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Collection[str], where: str, hint: str = ""
) -> None:
    """Refuse arguments that would be ignored without a word.

    Args:
        names: as of `given_options`.
        where: they have no effect, such as `with --retrieval`.
        hint: what was perhaps meant.

    Raises:
        DataError: any of them was given.
    """
    if given := given_options(parser, args, names):
        have = "has" if len(given) == 1 else "have"
        raise DataError(f"{', '.join(given)} {have} no effect {where}{hint and f': {hint}'}")
