"""The logs of a training, apart from those of other trainings in its process, as of a sweep of hydra's.

fairseq keeps TensorBoard's writers in a table of the process, by the names of splits: the curves of all trainings went
to the folder of the first. It never closes what --log-file names, so that later trainings were logged there, too; and
opens it once more in each epoch, so that a line of the tenth stood there ten times. Nor does it end a run of Weights
& Biases that it has opened, which later trainings joined. And captions of validation, which are not its own log's, did
not go to --log-file.
"""

from __future__ import annotations

import logging
from typing import Final

from fairseq.logging import progress_bar

TRAIN: Final = "fairseq_cli.train"
CAPTIONS: Final = "xgpt_fairseq.tasks.caption_log"

_opens_run = False  # whether the training that began last opens a run of Weights & Biases, which it then leaves open


def begin_logs(log_file: str | None, wandb_project: str | None = None) -> None:
    """Close what earlier trainings of this process were logged to; call it where a training begins.

    Captions of its validations go to its --log-file, too. A run of Weights & Biases that was open before all of them,
    such as the user's or an agent's, stays open.

    Args:
        log_file: the training's --log-file, which fairseq's program has opened by then.
        wandb_project: its --wandb-project, whose run is opened later.
    """
    global _opens_run  # a process has one run
    wandb = progress_bar.wandb
    if _opens_run and wandb.run is not None:
        wandb.finish()
    _opens_run = bool(wandb_project) and wandb is not None and wandb.run is None
    writers = progress_bar._tensorboard_writers
    for writer in writers.values():
        writer.close()
    writers.clear()
    captions = logging.getLogger(CAPTIONS)
    for handler in _files(TRAIN):
        captions.removeHandler(handler)
    _close_files(TRAIN, but_the_last=0 if log_file is None else 1)
    for handler in _files(TRAIN):
        captions.addHandler(handler)
    _close_files(progress_bar.__name__, but_the_last=0)


def keep_one_file() -> None:
    """Write a line of fairseq's progress to --log-file once; call it where an epoch begins."""
    _close_files(progress_bar.__name__, but_the_last=1)


def _close_files(name: str, *, but_the_last: int) -> None:
    """Close the files of the logger *name*, in the order in which they were opened."""
    files = _files(name)
    for handler in files[: max(0, len(files) - but_the_last)]:
        logging.getLogger(name).removeHandler(handler)
        handler.close()


def _files(name: str) -> list[logging.FileHandler]:
    return [handler for handler in logging.getLogger(name).handlers if isinstance(handler, logging.FileHandler)]
