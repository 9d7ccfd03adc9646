"""`--help` of fairseq's programs with the plugin's options in it.

fairseq prints its help before it adds the options of a task, a model and a criterion.
"""

from __future__ import annotations

import argparse
import sys

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY

OURS = "xgpt"  # how the names of our tasks, architectures and criterions begin
DEFAULTS = {"arch": "xgpt_base", "criterion": "xgpt"}


def print_help(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Print help for the task of ours that is *given*, its model, criterion and optimizer, and end the program.

    Without such a task this returns, and fairseq's own help follows.

    Args:
        parser: the program's, with fairseq's options.
        given: what it has read of the command line.

    Raises:
        SystemExit: help is printed.
    """
    if given.task is None or not given.task.startswith(OURS):
        print("The plugin's options are listed for a task: --task xgpt_caption --help\n")
        return
    TASK_REGISTRY[given.task].add_args(parser.add_argument_group(f"--task {given.task}"))
    if "--arch" in parser._option_string_actions:  # a program that trains
        names = {name: _ours(getattr(given, name), default) for name, default in DEFAULTS.items()}
        ARCH_MODEL_REGISTRY[names["arch"]].add_args(parser.add_argument_group(f"--arch {names['arch']}"))
        for kind in ("criterion", "optimizer", "lr_scheduler"):
            name = names.get(kind) or getattr(given, kind)
            options = REGISTRIES[kind]["dataclass_registry"].get(name)
            if options is not None:
                group = parser.add_argument_group(f"--{kind.replace('_', '-')} {name}")
                gen_parser_from_dataclass(group, options())
    parser.print_help()
    sys.exit(0)


def _ours(name: str | None, default: str) -> str:
    return name if name is not None and name.startswith(OURS) else default
