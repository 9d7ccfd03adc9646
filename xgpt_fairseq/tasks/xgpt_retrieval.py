"""The task `xgpt_retrieval`: image retrieval and caption retrieval with a matching head (section 6.1)."""

from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import register_task

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.matching_dataset import MatchingDataset
from xgpt_fairseq.errors import check_at_least
from xgpt_fairseq.tasks.checks import uses_gpu
from xgpt_fairseq.tasks.options import renamed
from xgpt_fairseq.tasks.regions import RegionsConfig, RegionsTask

NEGATIVES = ChoiceEnum(["four-way", "in-batch"])


@dataclass
class XGPTRetrievalConfig(RegionsConfig):
    negatives: NEGATIVES = field(  # type: ignore[valid-type]
        default="four-way",
        metadata={"help": "four-way: the pair against a wrong caption, a wrong image and a hard negative, as ViLBERT; "
                  "in-batch: each pair against others of its batch"},
    )  # fmt: skip
    hard_negative_pool: int = field(
        default=100,
        metadata={"help": "four-way: the hard negative is a caption of one of the N images with the nearest mean "
                  "features"},
    )  # fmt: skip
    hard_pool: int = field(default=0, metadata={"help": "old name of --hard-negative-pool"})
    max_negatives: int = field(
        default=3,
        metadata={"help": "in-batch: most negatives per pair; each takes a pass through the encoder"},
    )  # fmt: skip


@register_task("xgpt_retrieval", dataclass=XGPTRetrievalConfig)
class XGPTRetrievalTask(RegionsTask):
    """Trains a matching head on the encoder's joint states, for xgpt-evaluate --retrieval.

    Validation is always four-way, so that its loss and accuracy (`matching_nll_loss`, `matching_accuracy`) can be
    compared; its negatives are the same in every epoch.

    Args:
        cfg: the task's configuration.
        directory: the opened data directory.
    """

    def __init__(self, cfg: XGPTRetrievalConfig, directory: DataDirectory) -> None:
        self._hard_pool = renamed(cfg, "hard_pool", "hard_negative_pool")
        check_at_least("--hard-negative-pool", self._hard_pool, 1)
        check_at_least("--max-negatives", cfg.max_negatives, 1)
        super().__init__(cfg, directory, objective_weights={"matching": 1.0})
        self._longest: int | None = None

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> Any:
        """Build the model, whose longest text also limits the negatives."""
        model = super().build_model(cfg, from_checkpoint)
        self._longest = model.max_decoder_positions()
        return model

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Load *split*: an item is an image and one caption."""
        training = split == self.cfg.train_subset
        self.datasets[split] = MatchingDataset(
            self.directory.captions(split),
            self.directory.pairs(split),
            self.directory.regions,
            self.objectives,
            split=split,
            pad=self.target_dictionary.pad(),
            seed=self.cfg.seed,
            shuffle=training,
            negatives=str(self.cfg.negatives) if training else "four-way",
            hard_pool=self._hard_pool,
            max_negatives=self.cfg.max_negatives,
            longest=self._longest,
            device="cuda" if uses_gpu(self.cfg) else "cpu",
        )
