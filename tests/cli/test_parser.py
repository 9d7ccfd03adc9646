"""What the programs say of options that they do not have, and what they do with one that is given twice."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from tests.cli.test_help import PROGRAMS
from tests.test_readmes import OWN_MODULES, program_parser
from xgpt_fairseq.cli.parser import Parser


def parser() -> Parser:
    result = Parser(prog="xgpt-x")
    result.add_argument("--beam", type=int)
    result.add_argument("--max-len", type=int)
    commands = result.add_subparsers(dest="command")
    commands.add_parser("merge").add_argument("--output")
    return result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-lne=3", "merge"], "xgpt-x: error: unrecognized arguments: --max-lne=3 (did you mean --max-len?)"),
        (["--beem=3"], "xgpt-x: error: unrecognized arguments: --beem=3 (did you mean --beam?)"),
        (["--nothing-like-it"], "xgpt-x: error: unrecognized arguments: --nothing-like-it"),
        (["--beam", "x"], "xgpt-x: error: argument --beam: invalid int value: 'x'"),
        (["merge", "--outptu", "a"], "xgpt-x: error: unrecognized arguments: --outptu a (did you mean --output?)"),
    ],
)
def test_a_mistake_is_one_line_and_where_help_is(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{said}\nxgpt-x --help lists all options\n"


def test_a_subcommand_says_the_same(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["merge", "--output"])
    assert capsys.readouterr().err.splitlines() == [
        "xgpt-x merge: error: argument --output: expected one argument",
        "xgpt-x merge --help lists all options",
    ]


def options_of_several_values(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from options_of_several_values(each)
        elif action.option_strings and action.nargs in ("+", "*"):
            yield action


@pytest.mark.parametrize("name", [*(module.rpartition(".")[2] for module in PROGRAMS.values()), *OWN_MODULES])
def test_what_is_given_twice_counts_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in options_of_several_values(program_parser(name, monkeypatch)):
        # argparse's own: the last one counts, without a word
        assert isinstance(option, argparse._ExtendAction), option.option_strings
        # what is given would be added to it
        assert not option.default, option.option_strings
