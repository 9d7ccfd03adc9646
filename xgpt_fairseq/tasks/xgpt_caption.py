"""The task `xgpt_caption`: image captioning, for fine-tuning, validation by captions, and generation (section 5)."""

import logging
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import register_task
from omegaconf import II

from xgpt_fairseq.criterions.xgpt_scst import XGPTSCSTCriterion
from xgpt_fairseq.data.caption_dataset import CaptionDataset, group_captions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.objective_dataset import JOINT, batches_of
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.metrics.validation_scorer import STATISTICS, ValidationScorer
from xgpt_fairseq.models.encoder import IMAGE_INPUTS
from xgpt_fairseq.objectives import build_objectives, option_fields
from xgpt_fairseq.objectives.ic import ImageCaptioning
from xgpt_fairseq.precision import autocast
from xgpt_fairseq.search.beam_search import CaptionGenerator
from xgpt_fairseq.search.constraints import read_constraints
from xgpt_fairseq.search.generator import adapt, vocabulary_arguments
from xgpt_fairseq.tasks.caption_log import CaptionLog
from xgpt_fairseq.tasks.checks import root_config
from xgpt_fairseq.tasks.limits import value_of
from xgpt_fairseq.tasks.options import CAPTION_METRICS, renamed
from xgpt_fairseq.tasks.regions import RegionsConfig, RegionsTask
from xgpt_fairseq.tasks.search_checks import check_search
from xgpt_fairseq.text.scripts import count_spacing
from xgpt_fairseq.workarounds import sample_for_search

logger = logging.getLogger(__name__)

_LOOKED_AT = 1000  # captions that tell whether words are separated
_AT_ONCE = 4096  # captions whose tokens are padded to one array


@dataclass
class CaptionConfig(RegionsConfig):
    """All options but those that objectives declare."""

    captions_per_image: int = field(
        default=1,
        metadata={"help": "captions of an image that share one encoding of it in training (5 for COCO and Flickr30k); "
                  "--batch-size counts captions"},
    )  # fmt: skip
    views: Optional[str] = field(
        default=None,
        metadata={"help": "region stores of other views of the same photos (xgpt-extract-regions --view), "
                  "colon-separated: in training, an image's regions come from one of all stores, drawn each epoch"},
    )  # fmt: skip
    region_dropout: float = field(
        default=0.0,
        metadata={"help": "in training, share of each image's regions that are left out, others in each epoch"},
    )
    shuffle_window_images: int = field(
        default=0,
        metadata={"help": "for a region store larger than memory: an epoch reads it in windows of N consecutive "
                  "images, in random order, shuffled internally (for example 20000) [0: any order]"},
    )  # fmt: skip
    locality: int = field(default=0, metadata={"help": "old name of --shuffle-window-images"})
    eval_captions: bool = field(
        default=False,
        metadata={"help": "also validate by greedy decoding: logs cider and bleu4, for --best-checkpoint-metric"},
    )
    log_captions: int = field(
        default=4,
        metadata={"help": "with --eval-captions: the log has validation's captions of so many images, the same each "
                  "time; TensorBoard and Weights & Biases, too, if fairseq's options ask for them"},
    )  # fmt: skip
    log_captions_photos: Optional[str] = field(
        default=None,
        metadata={"help": "a folder, tar or table of the photos of these images, which TensorBoard and Weights & "
                  "Biases show, too"},
    )  # fmt: skip
    constraints_file: Optional[str] = field(
        default=None,
        metadata={"help": "for --constraints: lines of an image id and, tab-separated, phrases to be in its caption"},
    )
    tensorboard_logdir: Optional[str] = II("common.tensorboard_logdir")
    wandb_project: Optional[str] = II("common.wandb_project")


# with the options that image captioning declares
XGPTCaptionConfig = make_dataclass(
    "XGPTCaptionConfig",
    option_fields([ImageCaptioning]),
    bases=(CaptionConfig,),
    namespace={"__module__": __name__},
)


def _given(cfg: Any, name: str) -> str | None:
    """The value of an option of fairseq's; None in a configuration that is no part of a run's, or an earlier one's."""
    option: str | None = getattr(cfg, name, None)
    return None if option is None or option.startswith("${") else option


@register_task("xgpt_caption", dataclass=XGPTCaptionConfig)
class XGPTCaptionTask(RegionsTask):
    """Captions from regions: loads data directories, validates by captions, and generates.

    Args:
        cfg: the task's configuration.
        directory: the opened data directory.
        objectives: see `XGPTTask`; by default only image captioning.
    """

    def __init__(self, cfg: Any, directory: DataDirectory, **objectives: Any) -> None:
        super().__init__(cfg, directory, **(objectives or {"objective_weights": {"ic": 1.0}}))
        self._scorers: dict[str, ValidationScorer] = {}
        self._unscored: set[str] = set()  # splits of which it was said
        self._truth: dict[str, list[tuple[str, str]]] = {}  # split → image id and first reference of each image
        self._update = 0
        self._greedy: Any = None
        self._samples_captions = False
        check_at_least("--captions-per-image", cfg.captions_per_image, 1)
        self._window = renamed(cfg, "locality", "shuffle_window_images")
        check_at_least("--shuffle-window-images", self._window, 0)
        left_out = getattr(cfg, "region_dropout", 0.0)
        if not 0 <= left_out < 1:
            raise DataError(f"--region-dropout must be at least 0 and below 1, got {left_out}")
        logged = getattr(cfg, "log_captions", 0)  # of a checkpoint of an earlier version: none
        check_at_least("--log-captions", logged, 0)
        self._log = CaptionLog(
            logged if cfg.eval_captions else 0,
            tensorboard_logdir=_given(cfg, "tensorboard_logdir"),
            wandb_project=_given(cfg, "wandb_project"),
            photos=getattr(cfg, "log_captions_photos", None),
        )
        if cfg.best_checkpoint_metric in CAPTION_METRICS and not cfg.eval_captions:
            raise DataError(f"--best-checkpoint-metric {cfg.best_checkpoint_metric} needs --eval-captions")
        if cfg.eval_captions and "ic" not in self.objectives:
            raise DataError(
                f"--eval-captions validates image captioning, which is not among --objectives "
                f"{','.join(self.objectives)}: add ic, or leave --eval-captions out"
            )

    def load_dataset(
        self, split: str, combine: bool = False, task_cfg: Any = None, epoch: int | None = None, **kwargs: Any
    ) -> None:
        """Load *split*: for training, items are captions; for validation, images with all their captions.

        For generation, an item is an image with its first caption, which the model reads with --score-reference alone.
        Only fairseq-generate loads a split without naming an epoch.
        """
        generating = epoch is None
        training = not generating and split == self.cfg.train_subset
        by_image = training and self._samples_captions
        scores = value_of(root_config(self.cfg).get("generation"), "score_reference", False)
        views = getattr(self.cfg, "views", None) if training else None  # a checkpoint of an earlier version has none
        dictionary = self.target_dictionary
        dataset = CaptionDataset(
            self.directory.captions(split),
            self.directory.pairs(split),
            self.directory.regions,
            build_objectives(["ic"], dictionary) if generating else self.objectives,
            split=split,
            pad=dictionary.pad(),
            seed=self.cfg.seed,
            joint=self.joint and not generating,
            captions_per_image=self.cfg.captions_per_image if training else 0,
            first_caption_only=generating or by_image,
            any_length=by_image or (generating and not scores),
            locality=self._window,
            shuffle=training,
            views=self.directory.views(views.split(":")) if views else (),
            region_dropout=getattr(self.cfg, "region_dropout", 0.0) if training else 0.0,
        )
        if generating and self.cfg.constraints_file:
            dataset = read_constraints(Path(self.cfg.constraints_file), dataset, self.vocabulary)
        self.datasets[split] = dataset
        if self.cfg.eval_captions and not training and not generating:
            references = self.directory.references(split).captions
            self._scorers[split] = ValidationScorer(list(references.values()))
            self._truth[split] = [(image_id, captions[0]) for image_id, captions in references.items()]
            self._log.find_photos(split, list(references))

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> Any:
        """Build the model, and the greedy search for validation (section 5.3)."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.eval_captions:
            self._greedy = self.build_generator([model], Namespace(beam=1))
        return model

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the criterion. One that samples captions itself trains on images, each once an epoch."""
        criterion = super().build_criterion(cfg, from_checkpoint)
        self._samples_captions = isinstance(criterion, XGPTSCSTCriterion)
        if self._samples_captions:
            self._check_words()
        return criterion

    def _check_words(self) -> None:
        """Refuse rewards that would always be 0, of captions that are one word each.

        Raises:
            DataError: the training captions have no spaces between words.
        """
        captions = self.directory.captions(self.cfg.train_subset)
        first = (self.to_text(captions[index]) for index in range(min(len(captions), _LOOKED_AT)))
        if count_spacing(first).joins_words:
            raise DataError(
                f"--criterion xgpt_scst: the captions of {self.directory.path} have no spaces between words, which its "
                "rewards compare; prepare captions that are cut into words (docs/data.md, Languages)"
            )

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, *args: Any, **kwargs: Any
    ) -> Any:
        """fairseq's step; a criterion that draws captions knows for which update."""
        self._update = update_num + 1
        if isinstance(criterion, XGPTSCSTCriterion):
            criterion.set_num_updates(update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)

    def training_captions(self) -> tuple[Iterator[np.ndarray], np.ndarray]:
        """The training split's captions, image by image, as it numbers them.

        Returns:
            tuple: token ids, some thousand captions at a time, int64 (n, T), padded on the right; the number of each
            caption's image, in order (captions,).
        """
        rows = np.asarray(self.directory.pairs(self.cfg.train_subset))
        order, first, count = group_captions(rows, 0)
        images = np.repeat(np.arange(len(first)), count)
        captions, pad = self.directory.captions(self.cfg.train_subset), self.target_dictionary.pad()
        chunks = (order[start : start + _AT_ONCE] for start in range(0, len(order), _AT_ONCE))
        return (captions.padded(chunk, pad) for chunk in chunks), images

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """Build the generator; it never emits `<unk>` or non-words (`<mask>`, `<s>`, dictionary padding)."""
        if getattr(args, "constraints", False) and not self.cfg.constraints_file:
            raise DataError("--constraints needs --constraints-file FILE: image ids and the phrases to generate")
        # the options of validation's search have no such thing
        without = hasattr(args, "constraints") and not args.constraints
        if without and getattr(self.cfg, "constraints_file", None):
            raise DataError("--constraints-file has no effect without --constraints: add it")
        check_search(args, max_positions=min(model.max_decoder_positions() for model in models))
        extra = {**(extra_gen_cls_kwargs or {}), **vocabulary_arguments(self.vocabulary)}
        if seq_gen_cls is None:
            seq_gen_cls = CaptionGenerator
            extra["no_early_stop"] = getattr(args, "no_early_stop", False)
        generator = super().build_generator(
            models,
            args,
            seq_gen_cls=seq_gen_cls,
            extra_gen_cls_kwargs=extra,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        )
        if isinstance(generator, SequenceGenerator):  # not the scorer of --score-reference
            adapt(generator)
        return generator

    def inference_step(
        self,
        generator: Any,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Any = None,
        constraints: Any = None,
    ) -> Any:
        """Search captions for a batch of images. Returns the hypotheses of each image, best first."""
        sample = sample_for_search(sample, generator)
        with autocast(self.cfg.cpu_bf16):
            return super().inference_step(
                generator, models, sample, prefix_tokens=prefix_tokens, constraints=constraints
            )

    def build_tokenizer(self, args: Any) -> Any:
        """None unless one is named, since the vocabulary also detokenizes."""
        return super().build_tokenizer(args)

    def build_bpe(self, args: Any) -> Any:
        """The data directory's vocabulary, which detokenizes, or the BPE that is named."""
        return super().build_bpe(args) or self.vocabulary

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple[Any, Any, dict[str, Any]]:
        """The criterion's loss and, with --eval-captions, the summands of the metrics of greedy captions.

        Of the training split the loss alone: fairseq-validate can validate on it, but its items are captions, not
        images.
        """
        loss, sample_size, log = super().valid_step(sample, model, criterion)
        if self.cfg.eval_captions and sample["split"] not in self._scorers:
            if sample["split"] not in self._unscored:
                logger.info(f"--eval-captions: none of {sample['split']}, the training split; its loss alone")
            self._unscored.add(sample["split"])
        elif self.cfg.eval_captions:
            scored = sample["objective"] in ("ic", JOINT)
            log.update(self._score_greedy_captions(sample) if scored else dict.fromkeys(STATISTICS, 0.0))
        return loss, sample_size, log

    def _score_greedy_captions(self, sample: dict[str, Any]) -> dict[str, float]:
        [net_input] = [batch["net_input"] for batch in batches_of(sample) if batch["objective"] == "ic"]
        images = {name: value for name, value in net_input.items() if name in IMAGE_INPUTS}
        with torch.no_grad(), autocast(self.cfg.cpu_bf16):
            hypotheses = self._greedy.generate([], {"net_input": images})
        captions = [self.to_text(hypothesis[0]["tokens"]) for hypothesis in hypotheses]
        ids = sample["id"].tolist()
        truth = [self._truth[sample["split"]][index] for index in ids]
        image_ids, people = [image_id for image_id, _ in truth], [first for _, first in truth]
        self._log.add(sample["split"], self._update, image_ids, captions, people)
        return self._scorers[sample["split"]].add(ids, captions)

    def to_text(self, tokens: torch.Tensor) -> str:
        """Decode generated token ids (T,) to text."""
        return self.vocabulary.decode(self.target_dictionary.string(tokens.int().cpu()))

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log the criterion's metrics and, if captions were generated, cider and bleu4 (1 is 100 % in both).

        Also the percentages of captions that repeat two words, `repeats`, and that are broken off, `bad_ends`.
        """
        super().reduce_metrics(logging_outputs, criterion)
        names = [name for name in logging_outputs[0] if name.startswith("_")] if logging_outputs else []
        if not sum(float(log.get("_caption_images", 0)) for log in logging_outputs):
            return  # fairseq also reduces each batch separately, and one of another objective has no captions
        for name in names:
            metrics.log_scalar_sum(name, sum(float(log[name]) for log in logging_outputs))

        def sums(meters: Any) -> dict[str, float]:
            return {name: meters[name].sum for name in names}

        metrics.log_derived("cider", lambda meters: round(ValidationScorer.cider(sums(meters)), 4))
        metrics.log_derived("bleu4", lambda meters: round(ValidationScorer.bleu4(sums(meters)), 4))
        metrics.log_derived(
            "repeats", lambda meters: round(100 * ValidationScorer.degeneration(sums(meters)).repeats, 2)
        )
        metrics.log_derived(
            "bad_ends", lambda meters: round(100 * ValidationScorer.degeneration(sums(meters)).bad_ends, 2)
        )
