"""The task `xgpt_pretrain`: IC, IMLM, IDA and TIFG, out of domain and in domain (sections 4.3, 5.1)."""

from dataclasses import dataclass, field, make_dataclass
from typing import Any

from fairseq.tasks import register_task

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, check_options, option_fields
from xgpt_fairseq.tasks.base import PretrainingConfig
from xgpt_fairseq.tasks.options import choose_objectives, values_of
from xgpt_fairseq.tasks.xgpt_caption import CaptionConfig, XGPTCaptionTask


@dataclass
class _PretrainConfig(PretrainingConfig, CaptionConfig):
    objectives: str = field(
        default="ic,imlm,ida,tifg", metadata={"help": "training objectives, in the order of their updates"}
    )


# with the options that all objectives declare
XGPTPretrainConfig = make_dataclass(
    "XGPTPretrainConfig",
    option_fields(PRETRAINING_OBJECTIVES.values()),
    bases=(_PretrainConfig,),
    namespace={"__module__": __name__},
)


@register_task("xgpt_pretrain", dataclass=XGPTPretrainConfig)
class XGPTPretrainTask(XGPTCaptionTask):
    """Image-text pre-training. Data, validation and generation are `xgpt_caption`'s."""

    def __init__(self, cfg: Any, directory: DataDirectory) -> None:
        known = list(PRETRAINING_OBJECTIVES)
        check_options(known, values_of(cfg))
        super().__init__(
            cfg,
            directory,
            objective_weights=choose_objectives(cfg.objectives, cfg.objective_weights, known=known),
            joint=str(cfg.objective_schedule) == "joint",
        )
