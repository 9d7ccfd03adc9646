"""XGPT as a fairseq plugin: `fairseq-train --user-dir xgpt_fairseq --task xgpt_caption --arch xgpt_base …`.

Importing the package registers its tasks, model and criterions (`xgpt_fairseq.plugin`). The package's own programs
leave that until they have read their options: torch and fairseq take seconds, and `--help` needs neither.
"""

import os
import sys
from pathlib import Path

__version__ = "0.1.0"


def _runs_own_program() -> bool:
    """Whether this process is one of the package's own programs, in any of the three ways in which they are started.

    Each of them imports what it uses; where one is not recognised, it only starts later. A user's program that was
    taken for one of them would find no task in fairseq.
    """
    if any(argument.startswith("xgpt_fairseq.cli.") for argument in sys.orig_argv):  # python -m
        return True
    if not sys.argv or sys.argv[0] in ("", "-c"):  # typed, whatever the folder
        return False
    package, program = Path(__file__).resolve().parent, Path(os.path.realpath(sys.argv[0]))
    if program.name.startswith("xgpt-"):  # of pip, without an ending; its module has the same name
        module = program.name.removeprefix("xgpt-").replace("-", "_")
    elif program.parent == package.parent / "preprocess" and program.suffix == ".py":  # of a checkout
        module = program.stem
    else:
        return False
    return (package / "cli" / f"{module}.py").is_file()


if not _runs_own_program():
    from xgpt_fairseq import plugin  # noqa: F401
