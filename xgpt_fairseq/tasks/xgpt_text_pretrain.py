"""The task `xgpt_text_pretrain`: MLM and MASS on plain text, before any image (section 5.4)."""

import logging
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from fairseq.tasks import register_task

from xgpt_fairseq.data.directory import TextDirectory
from xgpt_fairseq.data.text_dataset import TextDataset
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, check_options, option_fields
from xgpt_fairseq.tasks.base import PretrainingConfig, XGPTTask, XGPTTaskConfig
from xgpt_fairseq.tasks.options import choose_objectives, values_of

logger = logging.getLogger(__name__)


@dataclass
class _TextPretrainConfig(PretrainingConfig, XGPTTaskConfig):
    objectives: str = field(default="mlm,mass", metadata={"help": "training objectives, in the order of their updates"})
    sentences_per_epoch: int = field(
        default=5_000_000,
        metadata={"help": "an epoch is at most N sentences, and the next continues after them, so that memory does not "
                  "grow with the corpus; 0: all sentences"},
    )  # fmt: skip


TEXT_OBJECTIVES = {name: each for name, each in PRETRAINING_OBJECTIVES.items() if not each.uses_regions}

# with the options that those objectives declare
XGPTTextPretrainConfig = make_dataclass(
    "XGPTTextPretrainConfig",
    option_fields(TEXT_OBJECTIVES.values()),
    bases=(_TextPretrainConfig,),
    namespace={"__module__": __name__},
)


@register_task("xgpt_text_pretrain", dataclass=XGPTTextPretrainConfig)
class XGPTTextPretrainTask(XGPTTask):
    """Text pre-training. The model has no image parts; image-text pre-training adds them.

    Args:
        cfg: the task's configuration.
        directory: the opened text directory.
    """

    def __init__(self, cfg: Any, directory: TextDirectory) -> None:
        if cfg.sentences_per_epoch < 0:
            raise DataError(f"--sentences-per-epoch must be 0 (all) or more, got {cfg.sentences_per_epoch}")
        known = list(TEXT_OBJECTIVES)
        check_options(known, values_of(cfg))
        super().__init__(
            cfg,
            directory.vocabulary,
            objective_weights=choose_objectives(cfg.objectives, cfg.objective_weights, known=known),
            joint=str(cfg.objective_schedule) == "joint",
        )
        self.directory = directory

    @classmethod
    def open(cls, cfg: Any) -> "XGPTTextPretrainTask":
        """Open the text directory."""
        directory = TextDirectory(cfg.data)
        logger.info(f"{directory.path}: dictionary of {len(directory.vocabulary.dictionary):,} symbols")
        return cls(cfg, directory)

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Load *split*; the training split is shuffled, and read --sentences-per-epoch at a time."""
        training = split == self.cfg.train_subset
        self.datasets[split] = TextDataset(
            self.directory.sentences(split),
            self.objectives,
            split=split,
            pad=self.target_dictionary.pad(),
            seed=self.cfg.seed,
            joint=self.joint,
            shuffle=training,
            sentences_per_epoch=self.cfg.sentences_per_epoch if training else 0,
        )
