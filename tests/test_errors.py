"""How bad input is reported by fairseq's programs."""

from __future__ import annotations

import sys

import pytest

from xgpt_fairseq.errors import DataError, check_at_least, report, report_in_fairseq_programs


def raised(function) -> BaseException:
    with pytest.raises(Exception) as info:
        function()
    return info.value


def test_a_data_error_is_one_line_even_behind_another_exception(capsys):
    def hidden() -> None:
        try:
            raise DataError("features.npy, image 7: NaN")
        except DataError:
            raise Exception("please ensure that the architectures match")  # noqa: B904  (as fairseq's trainer does)

    error = raised(hidden)
    report(type(error), error, error.__traceback__)
    assert capsys.readouterr().err == "error: features.npy, image 7: NaN\n"


def test_other_errors_keep_their_traceback(capsys):
    error = raised(lambda: 1 / 0)
    report(type(error), error, error.__traceback__)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_hook_is_for_fairseq_s_programs_only(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["/somewhere/notebook"])
    report_in_fairseq_programs()
    assert sys.excepthook is sys.__excepthook__
    monkeypatch.setattr(sys, "argv", ["/somewhere/fairseq-train"])
    report_in_fairseq_programs()
    assert sys.excepthook is report


def test_an_option_that_is_too_small():
    for value in (1, 2, 1.5, None):
        check_at_least("--beam", value, 1)
    with pytest.raises(DataError) as caught:
        check_at_least("--beam", 0, 1)
    assert str(caught.value) == "--beam must be at least 1, got 0"
    with pytest.raises(DataError) as caught:
        check_at_least("--max-tokens", 1, 2, "a token and the end of sentence")
    assert str(caught.value) == "--max-tokens must be at least 2 (a token and the end of sentence), got 1"
