"""The task `xgpt_pretrain`: IC, IMLM, IDA and TIFG in turns, out of domain and in domain (sections 4.3, 5.1)."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import OBJECTIVES, ObjectiveOptions
from xgpt_fairseq.tasks.base import PretrainingConfig, check_ratios, choose_objectives
from xgpt_fairseq.tasks.xgpt_caption import XGPTCaptionConfig, XGPTCaptionTask

SPANS = ChoiceEnum(["poisson", "one"])
PLACEHOLDER = ChoiceEnum(["single", "multi"])
REDUCTION = ChoiceEnum(["mean", "sum"])


@dataclass
class XGPTPretrainConfig(PretrainingConfig, XGPTCaptionConfig):
    objectives: str = field(
        default="ic,imlm,ida,tifg", metadata={"help": "objectives that train, in the order of their turns"}
    )
    imlm_fragment_ratio: float = field(default=0.5, metadata={"help": "part of a caption that IMLM masks"})
    ida_mask_ratio: float = field(default=0.3, metadata={"help": "part of a caption that IDA masks"})
    ida_spans: SPANS = field(  # type: ignore[valid-type]
        default="poisson", metadata={"help": "spans of Poisson(3) tokens, or one span a caption"}
    )
    ida_placeholder: PLACEHOLDER = field(  # type: ignore[valid-type]
        default="single", metadata={"help": "one [MASK] a span, or one a token (Table 6)"}
    )
    ida_keep_regions: bool = field(
        default=False, metadata={"help": "IDA's encoder also sees the regions beside the aligned words"}
    )
    tifg_regions: int = field(default=100, metadata={"help": "TIFG generates at most so many regions of an image"})
    tifg_reduction: REDUCTION = field(  # type: ignore[valid-type]
        default="mean",
        metadata={"help": "squared difference of a region: the mean over its dimensions, or their sum as equation 5 is "
                  "printed, whose gradient is always clipped"},
    )  # fmt: skip


@register_task("xgpt_pretrain", dataclass=XGPTPretrainConfig)
class XGPTPretrainTask(XGPTCaptionTask):
    """Image-text pre-training. Data, validation and generation are `xgpt_caption`'s."""

    def __init__(self, cfg: XGPTPretrainConfig, directory: DataDirectory) -> None:
        check_ratios(cfg, ("imlm_fragment_ratio", "ida_mask_ratio", "mlm_mask_ratio", "mass_fragment_ratio"))
        if cfg.tifg_regions < 1:
            raise DataError(f"--tifg-regions must be at least 1, got {cfg.tifg_regions}")
        super().__init__(
            cfg,
            directory,
            objective_weights=choose_objectives(cfg.objectives, cfg.objective_weights, known=list(OBJECTIVES)),
            options=ObjectiveOptions(
                imlm_fragment_ratio=cfg.imlm_fragment_ratio,
                ida_mask_ratio=cfg.ida_mask_ratio,
                ida_spans=str(cfg.ida_spans),
                ida_placeholder=str(cfg.ida_placeholder),
                ida_keep_regions=cfg.ida_keep_regions,
                tifg_regions=cfg.tifg_regions,
                tifg_reduction=str(cfg.tifg_reduction),
                mlm_mask_ratio=cfg.mlm_mask_ratio,
                mass_fragment_ratio=cfg.mass_fragment_ratio,
            ),
            joint=str(cfg.objective_schedule) == "joint",
        )
