"""XGPT as a fairseq plugin: `fairseq-train --user-dir xgpt_fairseq --task xgpt_caption --arch xgpt_base …`.

Importing the package registers its tasks, model and criterions (`xgpt_fairseq.plugin`). The package's own programs
leave that until they have read their options: torch and fairseq take seconds, and `--help` needs neither.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"


def _runs_own_program() -> bool:
    """Whether this process is one of the package's own programs, in any of the three ways in which they are started.

    Each of them imports what it uses; where one is not recognised, it only starts later.
    """
    program = Path(sys.argv[0]) if sys.argv else Path()
    return (
        program.name.startswith("xgpt-")
        or program.absolute().parent.name == "preprocess"
        or any(argument.startswith("xgpt_fairseq.cli.") for argument in sys.orig_argv)
    )


if not _runs_own_program():
    from xgpt_fairseq import plugin  # noqa: F401
