"""`xgpt-recipe`: which recipes there are, and what it writes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.folders import contents
from xgpt_fairseq.cli import recipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def call(call_program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call_program(recipe.main, *arguments)


def own_of_the_recipe(name: str) -> dict[str, bytes]:
    """Its files in the checkout, without what Python has compiled of them."""
    return {file: content for file, content in contents(EXAMPLES / name).items() if "__pycache__" not in file}


def test_the_list_has_all_recipes(call: Callable[..., Any]) -> None:
    listed = call("--list").stdout.splitlines()
    assert {line.split()[0] for line in listed} == {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()}
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize("name", recipe.RECIPES)
def test_a_recipe_comes_with_those_that_it_calls(name: str) -> None:
    written = recipe.with_needed(name)
    for each in written:
        for file in recipe.files(EXAMPLES / each):
            if file.suffix in (".sh", ".py"):
                text = file.read_text(encoding="utf-8")
                # $EXAMPLES/quickstart/…, EXAMPLES / "xgpt_base", ../xgpt_base/
                called = re.findall(r'EXAMPLES(?:/| / ")(\w+)|\.\./(\w+)/|parent\.parent / "(\w+)"', text)
                assert {name for names in called for name in names if name} <= {*written}, file


def test_it_writes_a_recipe(call: Callable[..., Any]) -> None:
    done = call("xgpt_base")
    assert done.status == 0
    assert done.stdout.splitlines()[-1] == "what to do: examples/xgpt_base/README.md"
    assert contents(Path("examples/xgpt_base")) == own_of_the_recipe("xgpt_base")
    assert [path.name for path in Path("examples").iterdir()] == ["xgpt_base"]
    assert "examples/xgpt_base: is there already" in call("xgpt_base").stdout


def test_what_was_changed_is_replaced_only_when_asked(call: Callable[..., Any]) -> None:
    assert call("quickstart", "--output", "q").status == 0
    changed, own = Path("q/xgpt_base/1_text.sh"), Path("q/quickstart/output/notes.txt")
    changed.write_text("mine")
    Path("q/quickstart/steps.sh").unlink()
    own.parent.mkdir()
    own.write_text("mine")
    assert call("quickstart", "--output", "q").error == (
        "q/xgpt_base/1_text.sh exists, and is not the recipe's; pass --overwrite to replace it"
    )
    assert changed.read_text() == "mine" and not Path("q/quickstart/steps.sh").exists()
    assert call("quickstart", "--output", "q", "--overwrite").status == 0
    assert contents(Path("q/xgpt_base")) == own_of_the_recipe("xgpt_base")
    assert Path("q/quickstart/steps.sh").exists() and own.read_text() == "mine"


def test_what_cannot_be(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("file").write_text("")
    assert call("xgpt_base", "--output", "file").error == "file/xgpt_base: Not a directory"
    for arguments in ([], ["--list", "xgpt_base"]):
        done = call(*arguments)
        assert done.status == 2 and "one is required: RECIPE, or --list" in done.stderr
    assert call("other").status == 2
    monkeypatch.setattr(recipe, "_PACKAGE", tmp_path / "package")
    assert "was installed without its recipes" in call("xgpt_base").error
