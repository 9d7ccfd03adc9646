"""CONTRIBUTING's map is the tree, and a room imports only from those above it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "xgpt_fairseq"
# Imports the other way, each with its reason.
UPWARDS = {
    ("metrics", "plugin"),  # a checkpoint is validated by its own task, which fairseq's registry finds
    ("models", "hub_interface"),  # fairseq's from_pretrained is a method of the model, and returns the hub interface
}


def map_of_contributing() -> list[str]:
    """The modules of the map, `room/module.py` or `module.py`, from above to below."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text[text.index("    xgpt_fairseq/\n") : text.index("    preprocess/  ")]
    modules: list[str] = []
    rooms = ["", ""]  # the room, and the room within it
    for line in block.splitlines()[1:]:
        level = (len(line) - len(line.lstrip()) - 6) // 2
        if level > 2:
            continue  # more lines about a module
        if level < 2:
            rooms[level:] = [found[0] if (found := re.match(r"\w+/", line.strip())) else "", ""][: 2 - level]
        names = re.match(r"(?:\w+\.py(?:, )?)*", line.strip())
        assert names is not None
        modules += ["".join(rooms[:level]) + name for name in re.findall(r"\w+\.py", names[0])]
        if rooms[0] == "cli/":
            modules += sorted(f"cli/{path.name}" for path in (PACKAGE / "cli").glob("[!_]*.py"))
    return modules


def test_the_map_is_the_tree() -> None:
    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    shown = map_of_contributing()
    assert len(shown) == len(set(shown))
    assert set(shown) == there


def imports(path: Path) -> set[str]:
    """The modules and packages of xgpt_fairseq that *path* imports at run time, without `xgpt_fairseq.`."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.unparse(guard.test)
        for node in ast.walk(guard)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            module = (node.module or "").removeprefix(PACKAGE.name).removeprefix(".")
            found |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix(f"{PACKAGE.name}.")
                for alias in node.names
                if alias.name.startswith(f"{PACKAGE.name}.")
            }
    return found


def test_a_room_imports_from_rooms_above_it() -> None:
    order = list(dict.fromkeys(module.split("/")[0].removesuffix(".py") for module in map_of_contributing()))
    wrong = {
        (room, other)
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
        for room in [path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        for other in {name.split(".")[0] for name in imports(path)}
        if order.index(other) > order.index(room)
    }
    assert wrong == UPWARDS


def test_tests_mirror_the_package() -> None:
    """A room's tests lie in a folder of its name."""

    def folders(path: Path) -> set[str]:
        return {folder.name for folder in path.iterdir() if any(folder.glob("*.py"))}

    assert folders(ROOT / "tests") <= folders(PACKAGE) | {
        "benchmarks", "earlier_files", "end_to_end", "endurance", "examples", "faults", "fuzz", "gpu", "matrix",
        "mutants", "preloaded", "runtime", "security",
    }  # fmt: skip


def test_the_hooks_before_a_commit_are_found_without_activating_the_environment() -> None:
    entries = re.findall(r"entry: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert entries and all(entry.startswith(".venv/bin/") for entry in entries)
