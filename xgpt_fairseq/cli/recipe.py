"""`xgpt-recipe`: write the scripts of a recipe into a folder, to run them there or to change them."""

from __future__ import annotations

import argparse
import filecmp
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write
from xgpt_fairseq.io.folders import walk

_PACKAGE = Path(__file__).resolve().parents[1]
# What running a recipe where it lies leaves in its folder.
_MADE = ("output", "__pycache__")

_EXAMPLE = """\
Recipes whose scripts call each other are written together, side by side. READMEs and scripts name them examples/NAME,
as they are in the default folder. They find the package, and its programs, by the Python that is first in PATH.

examples:
  xgpt-recipe --list
  xgpt-recipe xgpt_base && bash examples/xgpt_base/1_text.sh
"""


class Recipe(NamedTuple):
    """What a recipe does, in a line; and the recipes whose scripts it calls."""

    summary: str
    needs: tuple[str, ...] = ()


RECIPES: Final = {
    "xgpt_base": Recipe("the paper's recipe: a script and a YAML file for each stage"),
    "quickstart": Recipe("all stages in miniature, on scenes that it draws", ("real_photos", "xgpt_base")),
    "real_photos": Recipe("all stages on photos with captions; ends in a captioner", ("quickstart", "xgpt_base")),
    "own_photos": Recipe("captioners compared by the regions that they are trained on"),
    "ablations": Recipe("tables 2, 3 and 6 of the paper", ("quickstart", "xgpt_base")),
    "retrieval_augmentation": Recipe("table 7 of the paper: retrieval", ("quickstart", "xgpt_base")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: recipe(_parse(arguments)))


def recipe(args: argparse.Namespace) -> None:
    """Print the list of recipes, or write one."""
    if args.list:
        width = max(map(len, RECIPES))
        print("\n".join(f"{name:{width}}  {each.summary}" for name, each in RECIPES.items()))
        return
    source = source_folder()
    names = with_needed(args.name)
    written = write([source / name for name in names], args.output, overwrite=args.overwrite)
    for name in names:
        print(f"{args.output / name}: " + (f"{written[name]} files" if written[name] else "is there already"))
    print(f"what to do: {args.output / args.name / 'README.md'}")


def source_folder() -> Path:
    """Where the recipes are: in the installed package, or beside it in a checkout.

    Raises:
        DataError: they are in neither.
    """
    for folder in (_PACKAGE / "recipes", _PACKAGE.parent / "examples"):
        if (folder / "xgpt_base").is_dir():
            return folder
    raise DataError(f"{_PACKAGE} was installed without its recipes; install it again")


def with_needed(name: str) -> list[str]:
    """*name*, and the recipes that it calls, and those that these call."""
    found = [name]
    for each in found:  # which grows meanwhile
        found += [needed for needed in RECIPES[each].needs if needed not in found]
    return found


def write(recipes: Sequence[Path], output: Path, *, overwrite: bool) -> dict[str, int]:
    """Copy the folders *recipes* to the folder *output*. Files there that no recipe has stay.

    Returns:
        dict: recipe → number of files that were written; those that were there already, the same, are not.

    Raises:
        DataError: a file is there that is another, and *overwrite* is false; or *output* cannot be written.
    """
    wanted = {folder.name: [(file, output / folder.name / file.relative_to(folder)) for file in files(folder)]
              for folder in recipes}  # fmt: skip
    try:
        new = {name: [pair for pair in pairs if not _same(*pair)] for name, pairs in wanted.items()}
        for _, target in (pair for pairs in new.values() for pair in pairs):
            if target.exists() and not overwrite:
                raise DataError(f"{target} exists, and is not the recipe's; pass --overwrite to replace it")
        for source, target in (pair for pairs in new.values() for pair in pairs):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as aside:
                shutil.copy(source, aside)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from None
    return {name: len(pairs) for name, pairs in new.items()}


def files(folder: Path) -> Iterator[Path]:
    """The files of a recipe, without what running it has made.

    Raises:
        OSError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    for parent, names in walk(folder, on_error=refuse, leave_out=lambda path: path.name in _MADE):
        yield from (parent / name for name in names)


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(source, target, shallow=False)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="xgpt-recipe", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=RECIPES, metavar="RECIPE", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("--list", action="store_true", help="print what the recipes are")
    parser.add_argument(
        "--output", type=Path, default=Path("examples"), metavar="FOLDER", help="folder to write (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist and are others")
    args = parser.parse_args(arguments)
    if (args.name is None) != args.list:
        parser.error("one is required: RECIPE, or --list")
    return args


if __name__ == "__main__":
    main()
