"""What the tasks of images share: the data directory and its region store."""

import logging
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import FairseqDataclass

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.regions.statistics import comparable_statistics, feature_statistics
from xgpt_fairseq.tasks.base import XGPTTask, XGPTTaskConfig

logger = logging.getLogger(__name__)


@dataclass
class RegionsConfig(XGPTTaskConfig):
    """What all tasks of images have."""

    regions: Optional[str] = field(
        default=None, metadata={"help": "region store [the one that the data directory names]"}
    )


class RegionsTask(XGPTTask):
    """A task over captions and their regions.

    Args:
        cfg: the task's configuration.
        directory: the opened data directory.
        objectives: see `XGPTTask`.
    """

    def __init__(self, cfg: Any, directory: DataDirectory, **objectives: Any) -> None:
        super().__init__(cfg, directory.vocabulary, **objectives)
        self.directory = directory

    @classmethod
    def open(cls, cfg: Any) -> "RegionsTask":
        """Open the data directory and its region store, so that what is wrong with them is said before training."""
        directory = DataDirectory(cfg.data, regions=cfg.regions)
        store = directory.regions
        logger.info(
            f"{directory.path}: dictionary of {len(directory.vocabulary.dictionary):,} symbols; regions "
            f"{store.path}: {len(store):,} images, features of width {store.feature_dim}"
        )
        return cls(cfg, directory)

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> Any:
        """Build the model, which knows what the features of its region store look like.

        A trained one that is loaded to be used compares them with its checkpoint's, and needs enough images for that.
        """
        model = super().build_model(cfg, from_checkpoint)
        store = self.directory.regions
        statistics = comparable_statistics(store) if from_checkpoint else feature_statistics(store)
        if statistics is not None:
            model.encoder.regions.keep_statistics(*map(torch.from_numpy, statistics))
        return model

    @property
    def feature_dim(self) -> int:
        """Width of the region features, for the model."""
        return self.directory.regions.feature_dim

    @property
    def has_boxes(self) -> bool:
        """Whether the regions have boxes, for the model."""
        return self.directory.regions.has_boxes

    @property
    def feature_settings(self) -> dict[str, Any] | None:
        """The settings of the extractor that made the regions, for the model; None: they were imported."""
        settings: dict[str, Any] | None = self.directory.regions.source.get("extractor")
        return settings

    @property
    def store_name(self) -> str:
        """Where the regions come from, for error messages."""
        return str(self.directory.regions.path)
