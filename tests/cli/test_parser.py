"""What the programs say of options that they do not have."""

from __future__ import annotations

import pytest

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
