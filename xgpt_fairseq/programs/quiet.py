"""What fairseq's programs print before they begin, and no user reads: left out unless it is asked for.

A training began with 26 lines of warnings of hydra, torch and fairseq about one another, a line of 9 000 characters
with the whole configuration, and 80 lines of the model's modules. --log-config brings the configuration and the modules
back, LOGLEVEL=DEBUG all of it.
"""

from __future__ import annotations

import logging
import re
import warnings

from omegaconf import DictConfig
from torch import nn

from xgpt_fairseq.programs.names import logs_everything

# How these warnings begin. None is about anything that a user of fairseq's programs could change.
WARNINGS = [
    r"\s*hydra\.experimental\.(initialize|compose)\(\) is no longer experimental",
    r"\s*The version_base parameter is not specified",
    r"\s*The strict flag in the compose API is deprecated",
    r"\s*In 'config': Usage of deprecated keyword in package header",
    r"\s*'config' is validated against ConfigStore schema",
    r"'pin_memory' argument is set as true but no accelerator is found",
    r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated",
]
# fairseq logs that it begins to save a checkpoint's extra state, and the traceback of a failure that is also raised.
SAVING = re.compile(r"State of \w+ is ready to be persisted|Traceback \(most recent call last\)")
LOGGERS = ["fairseq_cli.train", "fairseq_cli.generate", "fairseq_cli.validate"]


class ConfigFilter(logging.Filter):
    """Leaves out records that are a configuration or a model, unless the configuration's task has `log_config`."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether *record* is logged."""
        if isinstance(record.msg, DictConfig):
            self._shown = bool((record.msg.get("task") or {}).get("log_config"))
        return self._shown or not isinstance(record.msg, DictConfig | nn.Module)


def quieten(program: str | None) -> None:
    """Filter warnings and logs of this process, if it is one of fairseq's programs and does not log everything."""
    if program is None or logs_everything():
        return
    # fairseq-generate logs the debug messages of every library
    logging.getLogger("hydra").setLevel(logging.INFO)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("fairseq.checkpoint_utils").addFilter(lambda record: not SAVING.match(str(record.msg)))
    leave_out = ConfigFilter()
    for name in LOGGERS:
        logging.getLogger(name).addFilter(leave_out)
