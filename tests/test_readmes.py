"""Tables of options and of variables in READMEs against the parsers and scripts that they describe."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fairseq import options

from xgpt_fairseq.models.xgpt import XGPTConfig

ROOT = Path(__file__).resolve().parent.parent
# the programs of each page's tables of options, in their order
PROGRAMS = {
    "docs/regions.md": ["import_regions", "extract_regions"],
    "docs/data.md": ["learn_bpe", "prepare_captions", "prepare_text", "caption_text"],
    "docs/photos.md": ["caption"],
    "docs/inspect.md": ["gallery"],
    "docs/anywhere.md": ["caption_lite", "export"],
}
# programs of other distributions of the repository
OWN_MODULES = {"caption_lite": "xgpt_runtime.cli"}
TASKS = ["xgpt_caption", "xgpt_pretrain"]
# --name, --name VALUE
OPTION = re.compile(r"`(--[a-z0-9-]+)(?: ([^`]+))?`")
# what a table says of a default in the text, where it does not stand beside the option
STATED = re.compile(r"`(\w+)` \(default\)|\(default ([\d.]+)(?=[;),])|\bdefault ([\d.]+)$|\((\d+)\)$|\(paper: (\d+)")


def tables(readme: str, head: str) -> list[list[list[str]]]:
    """The tables of a README that begin with this line: rows of cells."""
    found: list[list[list[str]]] = []
    text = (ROOT / readme).read_text(encoding="utf-8")
    for _, table in re.findall(rf"^({re.escape(head)})\n((?:\|.*\n)+)", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
        found.append(rows[1:])  # without the rule below the head
    return found


def defaults(row: list[str]) -> Iterator[tuple[str, str | None]]:
    """The options of a row, and the default that it states for each, if it does."""
    names = OPTION.findall(row[0])
    stated = STATED.search(row[1]) if len(names) == 1 else None
    for name, value in names:
        if value and value == value.lower() and "…" not in value and "[" not in value:
            yield name, value
        else:
            yield name, next(filter(None, stated.groups())) if stated else None


def program_parser(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of a program of ours, taken from it as it begins to parse."""
    found: list[argparse.ArgumentParser] = []

    def take(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", take)
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit):
        importlib.import_module(OWN_MODULES.get(name, f"xgpt_fairseq.cli.{name}")).main()
    return found[0]


def training_parser(task: str) -> argparse.ArgumentParser:
    """fairseq-train's, with what a task, the model and the criterion add to it; the model's defaults, too."""
    parser = options.get_training_parser()
    command = ["data", "--task", task, "--arch", "xgpt_base", "--criterion", "xgpt"]
    options.parse_args_and_arch(parser, input_args=command)
    parser.set_defaults(**{name: value for name, value in vars(XGPTConfig()).items() if name[0] != "_"})
    return parser


def same(stated: str, default: object) -> bool:
    return stated == str(default) or (isinstance(default, float) and float(stated) == default)


def check(row: list[str], parsers: list[argparse.ArgumentParser]) -> int:
    """Every option of *row* is one of some parser, with the default that is stated; how many defaults that were."""
    count = 0
    for name, stated in defaults(row):
        actions = [p._option_string_actions[name] for p in parsers if name in p._option_string_actions]
        assert actions, f"{name} is no option"
        if stated is not None:
            assert any(same(stated, p.get_default(actions[0].dest)) for p in parsers), f"{name}: {stated} stated"
            count += 1
    return count


def test_options_of_training() -> None:
    parsers = [training_parser(task) for task in TASKS]
    found = tables("docs/train.md", "| Option | Meaning |")
    assert len(found) == 2
    assert sum(check(row, parsers) for table in found for row in table) >= 13


def test_options_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    for page, names in PROGRAMS.items():
        for name, table in zip(names, tables(page, "| Option | Meaning |"), strict=True):
            parser = program_parser(name, monkeypatch)
            count += sum(check(row, [parser]) for row in table)
    assert count >= 8


def test_variables_of_the_recipe() -> None:
    recipe = ROOT / "examples" / "xgpt_base"
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted(recipe.glob("*.sh")))
    (table,) = tables("examples/xgpt_base/README.md", "| Variable | Default | Meaning |")
    count = 0
    for names, values, *_ in table:
        variables, stated = re.findall(r"`(\w+)`", names), values.split(", ")
        for variable in variables:
            assert re.search(rf"\b{variable}\b", scripts), f"{variable} is in no script"
        for variable, value in zip(variables, stated, strict=False):
            if len(variables) == len(stated) and re.fullmatch(r"`[^`]+`|\d+", value):
                assert f"${{{variable}:-{value.strip('`')}}}" in scripts, f"{variable}: {value} stated"
                count += 1
    assert count >= 10
