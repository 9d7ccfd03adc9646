"""The command line of fairseq's programs, read once before fairseq reads it.

fairseq answers a name that it does not know with a hundred lines of usage, and a name that does not fit the task with a
traceback, after seconds or in the midst of training.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Collection, Sequence

from fairseq import options

from xgpt_fairseq.checkpoints import load_checkpoint, named_checkpoints
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.refused import check_half_precision, check_overrides, check_training_options
from xgpt_fairseq.programs.task_help import print_help

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "fairseq-train": options.get_training_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-interactive": options.get_interactive_generation_parser,
    "fairseq-validate": options.get_validation_parser,
    "fairseq-eval-lm": options.get_eval_lm_parser,
}
INSTEAD = {
    "fairseq-interactive": "reads sentences, and images have none: caption photos or a region store with xgpt-caption, "
    "and the images of a data directory with fairseq-generate",
    "fairseq-eval-lm": "scores models of text without images: fairseq-validate gives the loss of a split, and "
    "xgpt-diagnose what each objective makes of its input",
}
TASKS = "xgpt_"  # what the names of our tasks begin with
MAKES_NO_CAPTIONS = {
    "xgpt_retrieval": "ranks images and captions: xgpt-evaluate --retrieval",
    "xgpt_text_pretrain": "knows no images: fairseq-validate gives its loss",
}
# What fairseq's schedulers need and have no default for: without it, they end in a traceback.
NEEDED = {
    "polynomial_decay": ("--total-num-update", "updates until the learning rate is 0, as many as --max-update"),
    "triangular": ("--max-lr", "the learning rate at the top of the triangle"),
}
HELP = {"-h", "--help"}


def check_command_line(program: str | None, arguments: Sequence[str], *, architectures: Collection[str]) -> None:
    """Check the *arguments* of one of fairseq's programs; others pass. `--help` with a task of ours is answered here.

    Args:
        architectures: the names that --arch may have for our tasks.

    Raises:
        SystemExit: help was asked for, and is printed.
        DataError: a value that an option cannot have, a task or architecture that is missing, or one that does not fit.
    """
    if program not in PARSERS:
        return
    parser = PARSERS[program]()
    parser.exit_on_error = False
    parser.set_defaults(task=None, arch=None)
    try:
        given, _ = parser.parse_known_args([argument for argument in arguments if argument not in HELP])
    except argparse.ArgumentError as error:
        raise DataError(_reworded(parser, error)) from None
    if HELP & set(arguments):
        print_help(parser, given)
        return
    if given.task is None:
        raise DataError(f"--task is missing: {', '.join(_ours(parser, 'task'))}")
    if not given.task.startswith(TASKS):
        return
    if program in INSTEAD:
        raise DataError(f"{program} {INSTEAD[program]}")
    if program == "fairseq-generate" and given.task in MAKES_NO_CAPTIONS:
        raise DataError(f"--task {given.task} makes no captions; it {MAKES_NO_CAPTIONS[given.task]}")
    check_half_precision(given)
    if program == "fairseq-generate" and given.replace_unk is not None:
        raise DataError("--replace-unk: no caption has an unknown word, since <unk> is never generated: leave it out")
    if program == "fairseq-validate":  # which loads its models before it asks the task
        if given.path is None:
            raise DataError("--path CHECKPOINT is missing: the model that is to be validated")
        paths = named_checkpoints(given.path)
        if len(paths) > 1:
            raise DataError(f"--path {given.path}: {program} validates one checkpoint, and {len(paths)} are named")
        for path in paths:
            load_checkpoint(path)
        check_overrides("--model-overrides", given.model_overrides)
    if program == "fairseq-train":
        check_training_options(given, given)
    if program == "fairseq-train" and given.arch not in architectures:
        problem = "--arch is missing" if given.arch is None else f"--arch {given.arch} is no model of {given.task}"
        raise DataError(f"{problem}: {', '.join(architectures)}")
    if program == "fairseq-train" and given.optimizer is None:
        raise DataError("--optimizer is missing: the paper's is adam, with --adam-betas '(0.9, 0.98)'")
    needed, what = NEEDED.get(getattr(given, "lr_scheduler", ""), ("", ""))
    if needed and not any(argument.split("=")[0] == needed for argument in arguments):
        raise DataError(f"--lr-scheduler {given.lr_scheduler} needs {needed}: {what}")


def _reworded(parser: argparse.ArgumentParser, error: argparse.ArgumentError) -> str:
    """argparse's message, with the nearest names in place of all."""
    actions = [action for action in parser._actions if "/".join(action.option_strings) == error.argument_name]
    text = str(error.message)
    if not actions or actions[0].choices is None or not text.startswith("invalid choice: "):
        return f"{error.argument_name}: {text}"
    value = text.removeprefix("invalid choice: ").split(" (choose from", 1)[0].strip("'\"")
    names = [str(choice) for choice in actions[0].choices]
    near = difflib.get_close_matches(value, names) or [name for name in names if name.startswith("xgpt")] or names
    return f"{error.argument_name} {value} is unknown; did you mean {', '.join(near[:5])}?"


def _ours(parser: argparse.ArgumentParser, option: str) -> list[str]:
    (action,) = (action for action in parser._actions if action.dest == option)
    return [name for name in action.choices or () if str(name).startswith(TASKS)]
