"""One line where one of fairseq's programs ends by a mistake of its user: ours, and fairseq's that we know.

Everything else keeps its traceback: it is a bug, and needs one.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from traceback import walk_tb
from types import TracebackType

from fairseq.data.iterators import BackgroundConsumer
from hydra.errors import ConfigCompositionException
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from xgpt_fairseq.errors import SENT_DATA_ERROR, DataError, in_one_line, said_by
from xgpt_fairseq.io.atomic import FULL, TORCH_WRITER
from xgpt_fairseq.programs import memory, peers
from xgpt_fairseq.programs.generated_file import GENERATE, keep_aside
from xgpt_fairseq.programs.names import fairseq_program, logs_everything

# What other libraries say, as "Type: message", and what we say instead (templates of re.Match.expand).
KNOWN = [
    (
        r"AssertionError: Must specify batch size",
        "no batch size: pass --batch-size N (captions in training, images in generation) or --max-tokens N",
    ),
    (r"AssertionError: --path required", "--path CHECKPOINT is missing: the model that is to be used"),
    (
        r"\[Errno 24\] Too many open files|RuntimeError: Too many open files|received 0 items of ancdata",
        "too many open files: raise the limit of the shell (ulimit -n 65536), or use fewer --num-workers",
    ),
    (
        r"Could not infer task type from \{'_name': '?([^',}]*)",
        r"task: {_name: \1} is unknown; the plugin's tasks: xgpt_caption, xgpt_pretrain, xgpt_retrieval, "
        "xgpt_text_pretrain",
    ),
    (
        r"NotImplementedError: Unknown post_process option: (\S+)",
        r"--post-process (--remove-bpe) \1 is unknown: leave it out, captions are made of words by the data "
        "directory's own vocabulary",
    ),
    (r"ValueError: Seed must be between", "--seed must be at least 0 and less than 2**32"),
    (
        r"Torch not compiled with CUDA enabled|Found no NVIDIA driver",
        "an option needs a GPU (--profile does), and torch finds none here: leave it out",
    ),
    (r"OutOfMemoryError: |Error: CUDA (?:error: )?out of memory", memory.FULL),
    (
        r"FloatingPointError: Minimum loss scale reached \(([\d.e+-]+)\)",
        r"the training has diverged: at the smallest loss scale, --min-loss-scale \1, its gradients are beyond "
        "float16's range; a lower --lr, a longer warm-up or --clip-norm may help, and --bf16 has float32's range",
    ),
    *peers.SAID,
]
_INTERPOLATION = (GrammarParseError, InterpolationResolutionError, UnsupportedInterpolationType)
_NAMES_A_VALUE = " (${ begins the name of a value in fairseq's configuration: no path may have it)"
# functions of fairseq that write a file → the variable that has its name
WRITERS = {("fairseq.checkpoint_utils", "torch_persistent_save"): "filename", (GENERATE, "main"): "output_path"}


def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """An exception hook that prints a mistake as one line, also if another exception was raised from it.

    fairseq's trainer, for example, wraps our error in a generic 'check the architecture' message. Of several processes
    that fairseq starts, the first one's traceback arrives as text. With LOGLEVEL=DEBUG all tracebacks are printed.
    """
    line = next((line for cause in _causes(error) if (line := _line_of(cause)) is not None), None) or _said_by(error)
    kept = keep_aside(error)
    if isinstance(error, BrokenPipeError) and not logs_everything():  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
    elif line is not None and not logs_everything():
        print(f"error: {in_one_line(line + kept)}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt | Killed):
        print(f"interrupted{kept}", file=sys.stderr)
        _end_beside_threads(interrupted=isinstance(error, KeyboardInterrupt))
        return
    else:
        sys.__excepthook__(kind, error, traceback)
    peers.tell_others_of_the_end()
    _end_beside_threads()


def _end_beside_threads(*, interrupted: bool = False) -> None:
    """End this process, with status 1, where fairseq's thread that makes batches ahead may be at work.

    One that was *interrupted* ends by that signal, as Python ends it.

    Works around: Python ends such a thread (a daemon) where it comes back from torch's C++, which then aborts the
    process: "terminate called without an active exception", status 134 (https://github.com/python/cpython/issues/87135).
    tests/programs/test_reporting.py says when it is no longer needed.
    """
    if any(isinstance(thread, BackgroundConsumer) for thread in threading.enumerate()):
        atexit._run_exitfuncs()  # as Python does first
        sys.stdout.flush()
        sys.stderr.flush()
        if interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(1)


def report_in_fairseq_programs() -> None:
    """Install `report` if this process is one of fairseq's programs and has no other hook."""
    program = fairseq_program()
    if program == "fairseq-generate" and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end_killed)  # to say where what was written is kept
    if program is not None and sys.excepthook is sys.__excepthook__:
        sys.excepthook = report
        if program == "fairseq-hydra-train":
            # else hydra prints a shortened traceback itself, and ends the process before the hook is called
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")


class Killed(BaseException):
    """`kill` has ended this process."""


def _end_killed(*_: object) -> None:
    raise Killed


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _line_of(error: BaseException) -> str | None:
    """The line for *error*, also where another was raised from it; None where it is no known mistake."""
    if isinstance(error, DataError):
        return said_by(error)
    text = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "ProcessRaisedException" and (sent := SENT_DATA_ERROR.findall(text)):
        return str(sent[-1])
    return next((match.expand(line) for pattern, line in KNOWN if (match := re.search(pattern, text))), None)


def _said_by(error: BaseException) -> str | None:
    """What an error says of itself, if it is one that speaks to users.

    Only the error that ends the program: a bug in the handling of another must not be taken for that one.
    """
    if isinstance(error, OSError) and error.strerror:
        # a folder that is a file, no permission; of a copy to a full disk, the copy
        place = (error.filename2 if error.errno in FULL else None) or error.filename
        place = place or (_written_by(error) if error.errno in FULL else None)
        if place is not None:
            return f"{place}: {error.strerror}"
    if TORCH_WRITER.search(str(error)) and (place := _written_by(error)) is not None:
        return f"{place} cannot be written: the disk is full, most likely"
    if isinstance(error, OmegaConfBaseException):  # a name or a value in YAML
        key, said = error.full_key or error.key, str(error.msg or error).splitlines()[0]
        line = said if key is None or str(key) in said else f"{key}: {said}"
        return line + (_NAMES_A_VALUE if isinstance(error, _INTERPOLATION) else "")
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, _INTERPOLATION):
        return str(error).splitlines()[0] + _NAMES_A_VALUE
    # "--sampling-topp requires --sampling", and many more: so fairseq speaks to its users
    speaks = isinstance(error, AssertionError | ValueError) and str(error) and _raised_by_fairseq(error)
    return str(error).splitlines()[0] if speaks else None


def _written_by(error: BaseException) -> str | None:
    """The file that fairseq was writing when *error* was raised; None where it is not known."""
    found = []
    for frame, _ in walk_tb(error.__traceback__):
        name = WRITERS.get((frame.f_globals.get("__name__", ""), frame.f_code.co_name), "")
        found += [str(frame.f_locals[name])] if name in frame.f_locals else []
    return found[-1] if found else None


def _raised_by_fairseq(error: BaseException) -> bool:
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").split(".")[0] in ("fairseq", "fairseq_cli")
