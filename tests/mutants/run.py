"""How many small changes of the code the tests notice: python -m tests.mutants.run [ROOM…] [--per-room 25] [--seed 0]

cosmic-ray makes mutants of a module: another operator, a number one higher, a loop that never runs; `operators.py`
adds two kinds. A random sample is tested, at most one per place in the code, each mutant by the tests that run its
line. What cannot change a result is no mutant here: annotations, `raise` statements, help, logging, `__all__`, and
operators of another kind, which fail wherever they run. Tests that start programs, and those end to end, are not asked.

The session lies in build/mutants/; remove that for a new one. An interrupted session is resumed, and `--again` tests
its survivors by the tests of today. Modules are changed where they are, one at a time, and changed back: leave the
checkout alone meanwhile.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import OPERATOR_PROVIDERS, get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem
from coverage import CoverageData

from tests.mutants.operators import Provider
from tests.preloaded import python, share

OPERATOR_PROVIDERS["xgpt"] = Provider()

PACKAGE = Path("xgpt_fairseq")
ROOMS = ("objectives", "models", "search", "data")
TESTS = (
    "tests/objectives", "tests/models", "tests/search", "tests/data", "tests/criterions", "tests/tasks",
    "tests/kernels", "tests/retrieval", "tests/test_loading.py", "tests/test_earlier_files.py",
    "tests/test_hub_interface.py",
)  # fmt: skip
SLOW = "not environment_decides and not test_base_takes_a_step"  # pytest's -k
TIMEOUT = 300  # seconds; a mutant may loop for ever
KINDS = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv"},
    {"BitAnd", "BitOr", "BitXor"},
    {"Lt", "LtE", "Gt", "GtE", "Eq", "NotEq"},
    {"Is", "IsNot"},
    {"UAdd", "USub", "Delete"},
    {"Invert", "Delete"},
    {"Not", "Delete"},
)
FOLDER = Path("build/mutants")
COVERAGE = """\
[run]
source = xgpt_fairseq
data_file = build/mutants/coverage
parallel = true
patch = subprocess, fork, _exit
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", default=ROOMS, metavar="ROOM", help="folders or modules of xgpt_fairseq")
    parser.add_argument("--per-room", type=int, default=25, help="mutants (default: %(default)s)")
    parser.add_argument("--seed", default="0", help="of the sample (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="test the last session's survivors again")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    new = not (FOLDER / "session.sqlite").exists()
    print(f"{'a new session' if new else 'the session'} in {FOLDER}")
    with use_db(FOLDER / "session.sqlite") as session:
        if new:
            session.add_work_items(draw(session, args.rooms, args.per_room, args.seed))
        if args.again or not (FOLDER / "coverage").exists():
            trace()
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # that of a mutant could be taken for the next one's
        share()  # by the tests that start programs, too
        done = [(item, result) for item, result in session.completed_work_items if not result.is_killed]
        for item in [item for item, _ in done] if args.again else session.pending_work_items:
            session.set_result(item.job_id, mutate_and_test(item.mutations, command(item), TIMEOUT))
        report(session)


def draw(session: WorkDB, rooms: Sequence[str], count: int, seed: str) -> list[WorkItem]:
    """*count* mutants of each room at as many places, all equally likely; by one seed always the same."""
    drawn = []
    for room in rooms:
        init(find_modules([PACKAGE / room]), session, {})
        mutants = [item for item in session.work_items if a_change(item)]
        session.clear()
        mutants.sort(key=lambda item: (place(item), item.mutations[0].operator_name, item.mutations[0].occurrence))
        chance = random.Random(f"{seed} {room}")
        by_place = [list(group) for _, group in itertools.groupby(mutants, place)]
        chance.shuffle(by_place)
        chosen = (chance.choice(group) for group in by_place)
        drawn += itertools.islice(filter(valid, chosen), count)
        print(f"{room}: {len(mutants)} mutants at {len(by_place)} places")
    return drawn


def place(item: WorkItem) -> tuple[str, tuple[int, int]]:
    return str(item.mutations[0].module_path), item.mutations[0].start_pos


def a_change(item: WorkItem) -> bool:
    """Whether a mutant can matter: it is not `silent`, and has an operator of the same kind in place of another.

    A shift in place of a product, or `is` in place of `<`, fails wherever it runs.
    """
    (mutation,) = item.mutations
    if any(start <= mutation.start_pos and mutation.end_pos <= end for start, end in silent(mutation.module_path)):
        return False
    operators = set(mutation.operator_name.split("_")[1:])
    return "Operator_" not in mutation.operator_name or any(operators <= kind for kind in KINDS)


def valid(item: WorkItem) -> bool:
    """Not so where the operator was none, as in `f(**options)` and `def f(x, *, y)`; nor where only help is dropped."""
    (mutation,) = item.mutations
    source, (line, column) = mutation.module_path.read_text(encoding="utf-8"), mutation.start_pos
    try:
        compile(mutate_code(source, get_operator(mutation.operator_name)(), mutation.occurrence), "", "exec")
    except SyntaxError:
        return False
    return not source.splitlines()[line - 1].startswith(("*,", "metadata="), column)


@cache
def silent(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end, (line, column), of the annotations of *path*, its `help=`, `raise`, logging and `__all__`."""

    def parts() -> Iterator[ast.AST | None]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.arg(annotation=part) | ast.AnnAssign(annotation=part):
                    yield part
                case ast.FunctionDef(returns=part):
                    yield part
                case ast.keyword(arg="help") | ast.Raise() | ast.Call(func=ast.Attribute(value=ast.Name(id="logger"))):
                    yield node
                case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Assign(targets=[ast.Name(id="__all__")]):
                    yield node

    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in parts() if n is not None]


def existing_tests() -> list[str]:
    return [path for path in TESTS if Path(path).exists()]


def trace() -> None:
    """Run all tests once, and write down which of them run which line. They pass, or nothing can be said of mutants."""
    for old in FOLDER.glob("coverage*"):
        old.unlink()
    settings = FOLDER / "coveragerc"
    settings.write_text(COVERAGE)
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run(
        [*coverage, "run", f"--rcfile={settings}", "-m", *pytest(existing_tests()), "-p", "tests.mutants.contexts"],
        check=True,
    )
    subprocess.run([*coverage, "combine", "--quiet", f"--rcfile={settings}"], check=True)


def pytest(tests: Sequence[str]) -> list[str]:
    return ["pytest", "-x", "-p", "no:cacheprovider", "-k", SLOW, *tests]


def command(item: WorkItem) -> str:
    """What tests a mutant: the tests that run its line, the room's own first; `true`, if nothing runs it.

    Where the line runs outside tests, at import or in a fixture: the room's, and those that run a line of the module.
    """
    (mutation,) = item.mutations
    contexts = contexts_by_line(mutation.module_path)
    found = {
        context for line in statement(mutation.module_path, mutation.start_pos[0]) for context in contexts.get(line, ())
    }
    if not found:
        return "true"
    room = f"tests/{mutation.module_path.parent.name}"
    if "" in found:
        found = set().union(*contexts.values())
    tests = sorted(found - {""}, key=lambda test: (not test.startswith(f"{room}/"), test))
    if "" in found and Path(room).exists():
        tests = [room, *(test for test in tests if not test.startswith(f"{room}/"))]
    return shlex.join([python(), "-m", *pytest(tests)])


@cache
def contexts_by_line(path: Path) -> dict[int, list[str]]:
    data = CoverageData(str(FOLDER / "coverage"))
    data.read()
    return data.contexts_by_lineno(str(path.absolute()))


def statement(path: Path, line: int) -> range:
    """The lines of the statement at *line*; of one with a body, those before it."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # from the outside in
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
            body = getattr(node, "body", None)
            end = body[0].lineno if body else node.end_lineno + 1
            if first <= line < end:
                found = range(first, end)
    return found


def report(session: WorkDB) -> None:
    results = sorted(session.completed_work_items, key=lambda pair: place(pair[0]))
    for item, result in results:
        if result.test_outcome is TestOutcome.SURVIVED:
            print(f"\n{item.mutations[0].operator_name}\n{result.diff}")
    print()
    for room in sorted({item.mutations[0].module_path.parent for item, _ in results}):
        caught = [result.is_killed for item, result in results if item.mutations[0].module_path.parent == room]
        print(f"{room}: {sum(caught)} of {len(caught)} caught")
    caught = [result.is_killed for _, result in results]
    print(f"together: {sum(caught)} of {len(caught)} caught, {sum(caught) / len(caught):.0%}")


if __name__ == "__main__":
    main()
