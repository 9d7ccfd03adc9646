"""Which errors fairseq's programs report in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from torch.multiprocessing import ProcessRaisedException

import xgpt_fairseq.plugin  # noqa: F401  (the names are fairseq's registries')
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.reporting import report, report_in_fairseq_programs


def raised(function) -> BaseException:
    with pytest.raises(BaseException) as info:
        function()
    return info.value


def reported(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    report(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def test_a_data_error_is_one_line_even_behind_another_exception(capsys):
    def hidden() -> None:
        try:
            raise DataError("features.npy, image 7: NaN")
        except DataError:
            raise Exception("please ensure that the architectures match")  # noqa: B904  (as fairseq's trainer does)

    assert reported(raised(hidden), capsys) == "error: features.npy, image 7: NaN\n"


def test_a_training_in_float16_that_diverges_is_one_line(capsys):
    """fairseq runs the batch again, to look for NaN in the model's outputs, and meets a dict without a tensor."""

    def hidden() -> None:
        try:
            raise FloatingPointError("Minimum loss scale reached (0.0001). Your loss is probably exploding.")
        except FloatingPointError:
            next(iter(()))

    said = reported(raised(hidden), capsys)
    assert said.startswith("error: the training has diverged: at the smallest loss scale, --min-loss-scale 0.0001, ")
    assert said.count("\n") == 1


def test_a_data_error_of_a_worker_of_a_data_loader_is_one_line(capsys):
    sent = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\n"
    error = raised(lambda: (_ for _ in ()).throw(DataError(f"{sent}xgpt_fairseq.errors.DataError: a.bin: cut\n")))
    assert reported(error, capsys) == "error: a.bin: cut\n"


def test_other_errors_keep_their_traceback(capsys):
    error = raised(lambda: 1 / 0)
    assert "ZeroDivisionError" in reported(error, capsys)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (AssertionError("Must specify batch size either with --max-tokens or --batch-size"), "no batch size: pass"),
        (AssertionError("--path required for generation!"), "--path CHECKPOINT is missing"),
        (OSError(24, "Too many open files", "features-00001.npy"), "ulimit -n 65536"),
        (RuntimeError("Too many open files. Communication with the workers is no longer possible."), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "halve --batch-size"),
    ],
)
def test_what_other_libraries_say_of_known_mistakes(error, line, capsys):
    printed = reported(error, capsys)
    assert line in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_an_assertion_of_fairseq_s_is_a_line_and_another_is_not(capsys):
    fairseq = {"__name__": "fairseq.tasks.fairseq_task"}
    exec("def check():\n    assert False, '--sampling-topk requires --sampling'", fairseq)
    assert reported(raised(fairseq["check"]), capsys) == "error: --sampling-topk requires --sampling\n"
    other = {"__name__": "torch.nn"}
    exec("def check():\n    assert False, 'a bug'", other)
    assert "Traceback" in reported(raised(other["check"]), capsys)


def test_a_file_that_cannot_be_opened(capsys, tmp_path):
    (tmp_path / "file").touch()
    error = raised(lambda: (tmp_path / "file" / "x").open("w"))
    assert reported(error, capsys) == f"error: {tmp_path}/file/x: Not a directory\n"
    assert "Traceback" in reported(raised(lambda: (_ for _ in ()).throw(OSError("no file"))), capsys)


def test_a_bug_in_handling_such_an_error_keeps_its_traceback(capsys, tmp_path):
    def buggy() -> None:
        try:
            (tmp_path / "missing").open()
        except OSError:
            {}["bug"]

    said = reported(raised(buggy), capsys)
    assert "Traceback" in said and "KeyError: 'bug'" in said


def test_the_error_of_one_of_several_processes(capsys):
    sent = (
        "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File …\n"
        "xgpt_fairseq.errors.DataError: data is not a data directory\n"
    )
    assert reported(ProcessRaisedException(sent, 1, 7), capsys) == "error: data is not a data directory\n"
    sent = "\n\n-- Process 1 terminated with the following error:\nZeroDivisionError: division by zero\n"
    assert "ZeroDivisionError" in reported(ProcessRaisedException(sent, 1, 7), capsys)


def test_ctrl_c(capsys):
    assert reported(KeyboardInterrupt(), capsys) == "interrupted\n"


def test_everything_is_logged_if_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("LOGLEVEL", "debug")
    error = raised(lambda: (_ for _ in ()).throw(DataError("bad")))
    assert "Traceback" in reported(error, capsys)


@pytest.mark.parametrize("program", ["/somewhere/fairseq-train", "/site-packages/fairseq_cli/train.py"])
def test_the_hook_is_for_fairseq_s_programs_only(program, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["/somewhere/notebook"])
    report_in_fairseq_programs()
    assert sys.excepthook is sys.__excepthook__
    monkeypatch.setattr(sys, "argv", [program])
    report_in_fairseq_programs()
    assert sys.excepthook is report


def test_hydra_leaves_errors_to_the_hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["/bin/fairseq-hydra-train"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    report_in_fairseq_programs()
    assert os.environ.pop("HYDRA_FULL_ERROR") == "1"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", ["runs/${x}", "runs/${a:b}", "runs/${"])
def test_a_path_that_the_configuration_takes_for_the_name_of_a_value(path: str, capsys):
    """As in `fairseq-train --save-dir`, whose value hydra reads."""
    options = ["data", "--task", "xgpt_caption", "--arch", "xgpt_demo", "--save-dir", path]
    given = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), input_args=options)
    error = raised(lambda: convert_namespace_to_omegaconf(given).checkpoint.save_dir)
    said = reported(error, capsys)
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert "save_dir" in said and "(${ begins the name of a value in fairseq's configuration" in said


BATCHES_AHEAD = """
import sys, time, atexit, torch
{import_report}
from fairseq.data.iterators import BackgroundConsumer

def batches():
    while True:
        yield torch.randn(300, 300).sort()

class Unbounded:
    def put(self, item):
        pass

thread = BackgroundConsumer(Unbounded(), batches(), None, None)
thread.daemon = True
thread.start()
atexit.register(print, "an exit function")
time.sleep(0.3)
raise {error}
"""


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        ("ValueError('a mistake')", "ValueError: a mistake", 1),
        ("KeyboardInterrupt", "interrupted", -signal.SIGINT),
        pytest.param("reporting.Killed", "interrupted", 1, marks=pytest.mark.thorough),
    ],
)
def test_an_error_beside_the_thread_that_makes_batches(error: str, said: str, status: int) -> None:
    """With --num-workers 0 it computes."""
    report = "from xgpt_fairseq.programs import reporting; sys.excepthook = reporting.report"
    program = BATCHES_AHEAD.format(import_report=report, error=error)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert said in done.stderr and "terminate called" not in done.stderr
    assert (done.stdout, done.returncode) == ("an exit function\n", status)


def test_python_aborts_beside_the_thread_that_makes_batches() -> None:
    """If it no longer does, `_end_beside_threads` can go."""
    program = BATCHES_AHEAD.format(import_report="", error="ValueError('a mistake')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT and "terminate called" in done.stderr
