"""The task `xgpt_pretrain`: IC, IMLM, IDA and TIFG in turns, out of domain and in domain (sections 4.3, 5.1)."""

from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import OBJECTIVES, ObjectiveOptions
from xgpt_fairseq.tasks.xgpt_caption import XGPTCaptionConfig, XGPTCaptionTask

SCHEDULE = ChoiceEnum(["turns", "joint"])
SPANS = ChoiceEnum(["poisson", "one"])
PLACEHOLDER = ChoiceEnum(["single", "multi"])


@dataclass
class XGPTPretrainConfig(XGPTCaptionConfig):
    objectives: str = field(
        default="ic,imlm,ida,tifg", metadata={"help": "objectives that train, in the order of their turns"}
    )
    objective_weights: str = field(
        default="",
        metadata={"help": "weights of the losses, such as ic=1,imlm=0.3,ida=0.3,tifg=0.3 (in domain) [1 each]; an "
                  "objective of weight 0 is left out"},
    )  # fmt: skip
    objective_schedule: SCHEDULE = field(  # type: ignore[valid-type]
        default="turns",
        metadata={"help": "turns: each objective on the same pairs, an update of its own (section 4.3); joint: the "
                  "weighted sum of their mean losses in one update"},
    )  # fmt: skip
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


@register_task("xgpt_pretrain", dataclass=XGPTPretrainConfig)
class XGPTPretrainTask(XGPTCaptionTask):
    """Image-text pre-training. Data, validation and generation are `xgpt_caption`'s."""

    def choose_objectives(self, cfg: Any) -> dict[str, float]:
        """Those of --objectives whose weight is not 0."""
        weights = dict.fromkeys(_names(cfg.objectives, "--objectives"), 1.0)
        for setting in filter(None, cfg.objective_weights.split(",")):
            name, _, value = setting.partition("=")
            if _names(name, "--objective-weights")[0] not in weights:
                raise DataError(f"--objective-weights {setting}: {name} is not among --objectives {cfg.objectives}")
            try:
                weights[name.strip()] = float(value)
            except ValueError:
                raise DataError(f"--objective-weights {setting}: expected name=number, such as imlm=0.3") from None
            if not 0 <= weights[name.strip()] < float("inf"):
                raise DataError(f"--objective-weights {setting}: a weight is a number of 0 or more")
        chosen = {name: weight for name, weight in weights.items() if weight > 0}
        if not chosen:
            raise DataError("--objective-weights: all objectives have weight 0, nothing is left to train")
        return chosen

    def objective_options(self, cfg: Any) -> ObjectiveOptions:
        """The options of the command line, checked."""
        for name, value in (("imlm", cfg.imlm_fragment_ratio), ("ida", cfg.ida_mask_ratio)):
            if not 0 < value < 1:
                option = "--imlm-fragment-ratio" if name == "imlm" else "--ida-mask-ratio"
                raise DataError(f"{option} must be between 0 and 1, got {value}")
        if cfg.tifg_regions < 1:
            raise DataError(f"--tifg-regions must be at least 1, got {cfg.tifg_regions}")
        return ObjectiveOptions(
            imlm_fragment_ratio=cfg.imlm_fragment_ratio,
            ida_mask_ratio=cfg.ida_mask_ratio,
            ida_spans=str(cfg.ida_spans),
            ida_placeholder=str(cfg.ida_placeholder),
            ida_keep_regions=cfg.ida_keep_regions,
            tifg_regions=cfg.tifg_regions,
        )

    @property
    def joint(self) -> bool:
        """Whether all objectives share one update."""
        return str(self.cfg.objective_schedule) == "joint"


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in OBJECTIVES]
    if unknown or not names:
        raise DataError(
            f"{option}: unknown objective {', '.join(unknown) or repr(text)}; known: {', '.join(OBJECTIVES)}"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{option} {text}: an objective is named twice")
    return names
