"""The one exception for bad input: a sentence for the user that names the file, the record, the value and the rule."""

from __future__ import annotations


class DataError(ValueError):
    """Something a user handed us is wrong: a file, a record, an option. The message says what, where and what to do.

    Command-line programs print the message without a traceback and exit with status 1 (see `xgpt_fairseq.cli`).
    """
