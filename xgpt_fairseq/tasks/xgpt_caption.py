"""The task `xgpt_caption`: image captioning, for fine-tuning, validation by captions, and generation (section 5)."""

import logging
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from fairseq.data import data_utils
from fairseq.data.iterators import EpochBatchIterator
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, MISSING, OmegaConf

from xgpt_fairseq.criterions import xgpt_criterion as xgpt_criterion  # registers --criterion xgpt
from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.data.constraints import ConstrainedDataset, read_constraints
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.turns import take_turns
from xgpt_fairseq.data.vocabulary import MASK, Vocabulary
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.evaluation.online import SUMS, OnlineScorer
from xgpt_fairseq.objectives import ObjectiveOptions, build_objectives
from xgpt_fairseq.workarounds import RepeatBlock, load_checkpoints_on_all_ranks, sample_for_search

logger = logging.getLogger(__name__)


@dataclass
class XGPTCaptionConfig(FairseqDataclass):
    data: str = field(default=MISSING, metadata={"help": "data directory (preprocess/prepare_captions.py)"})
    regions: Optional[str] = field(
        default=None, metadata={"help": "region store [the one that the data directory names]"}
    )
    captions_per_image: int = field(
        default=1,
        metadata={"help": "captions of an image that train on one encoding of it (5 for COCO, Flickr30k); --batch-size "
                  "counts captions"},
    )  # fmt: skip
    eval_captions: bool = field(
        default=False,
        metadata={"help": "validate by greedy decoding too: logs cider and bleu4, for --best-checkpoint-metric"},
    )
    constraints_file: Optional[str] = field(
        default=None,
        metadata={"help": "for --constraints: lines of an image id and, tab-separated, phrases its caption must hold"},
    )
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    update_freq: Any = II("optimization.update_freq")  # noqa: RUF009  (a string, for fairseq to look up)


@register_task("xgpt_caption", dataclass=XGPTCaptionConfig)
class XGPTCaptionTask(FairseqTask):
    """Captions from regions: loads data directories, validates by captions, and generates.

    Args:
        cfg: the task's configuration.
        directory: the opened data directory.
    """

    def __init__(self, cfg: XGPTCaptionConfig, directory: DataDirectory) -> None:
        super().__init__(cfg)
        self.directory = directory
        self.vocabulary: Vocabulary = directory.vocabulary
        self._scorers: dict[str, OnlineScorer] = {}
        self._greedy: Any = None
        self.objective_weights = self.choose_objectives(cfg)
        self.objectives = build_objectives(self.objective_weights, self.target_dictionary, self.objective_options(cfg))
        if cfg.captions_per_image < 1:
            raise DataError(f"--captions-per-image must be at least 1, got {cfg.captions_per_image}")
        if cfg.best_checkpoint_metric in ("cider", "bleu4") and not cfg.eval_captions:
            raise DataError(f"--best-checkpoint-metric {cfg.best_checkpoint_metric} needs --eval-captions")

    def choose_objectives(self, cfg: Any) -> dict[str, float]:
        """The objectives that train, in the order of their turns, with their weights."""
        return {"ic": 1.0}

    def objective_options(self, cfg: Any) -> ObjectiveOptions:
        """The objectives' options."""
        return ObjectiveOptions()

    @classmethod
    def setup_task(cls, cfg: XGPTCaptionConfig, **kwargs: Any) -> "XGPTCaptionTask":
        """Open the data directory and its region store, so that what is wrong with them is said before training."""
        load_checkpoints_on_all_ranks(cfg)
        directory = DataDirectory(cfg.data, regions=cfg.regions)
        store = directory.regions
        logger.info(
            f"{directory.path}: dictionary of {len(directory.vocabulary.dictionary):,} symbols; regions "
            f"{store.path}: {len(store):,} images, features of width {store.feature_dim}"
        )
        return cls(cfg, directory)

    @property
    def source_dictionary(self) -> None:
        """None: images have no source tokens."""
        return None

    @property
    def target_dictionary(self) -> Any:
        """The dictionary of the captions."""
        return self.vocabulary.dictionary

    @property
    def feature_dim(self) -> int:
        """Width of the region features, for the model."""
        return self.directory.regions.feature_dim

    @property
    def store_name(self) -> str:
        """Where the regions come from, for error messages."""
        return str(self.directory.regions.path)

    def load_dataset(
        self, split: str, combine: bool = False, task_cfg: Any = None, epoch: int | None = None, **kwargs: Any
    ) -> None:
        """Load *split*: for training, items of --captions-per-image captions; for validation, of all of an image's.

        For generation, an image is an item once, with its first caption: fairseq-generate is the one program that
        loads a split without saying an epoch.
        """
        generating = epoch is None
        training = not generating and split == self.cfg.train_subset
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
            first_caption_only=generating,
            shuffle=training,
        )
        if generating and self.cfg.constraints_file:
            dataset = read_constraints(Path(self.cfg.constraints_file), dataset, self.vocabulary)
        self.datasets[split] = dataset
        if self.cfg.eval_captions and not training and not generating:
            self._scorers[split] = OnlineScorer(list(self.directory.references(split).captions.values()))

    def get_batch_iterator(
        self,
        dataset: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
        required_batch_size_multiple: int = 1,
        seed: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        disable_iterator_cache: bool = False,
        skip_remainder_batch: bool = False,
        grouped_shuffling: bool = False,
        update_epoch_batch_itr: bool = False,
    ) -> EpochBatchIterator:
        """An iterator that draws batches anew in every epoch, orders them in turns, and keeps its workers.

        fairseq's own either keeps its batches too, or is built anew for each epoch and then waits up to ten seconds
        for the old one's workers. The order depends on (seed, epoch) alone, so that all ranks and a resumed run agree.
        """
        if grouped_shuffling:
            raise DataError("--grouped-shuffling would tear the turns apart; leave it out")
        if dataset in self.dataset_to_epoch_iter and not (disable_iterator_cache or update_epoch_batch_itr):
            return self.dataset_to_epoch_iter[dataset]
        captions = dataset.dataset if isinstance(dataset, ConstrainedDataset) else dataset

        def draw_batches(dataset: Any, epoch: int) -> list[Any]:
            with data_utils.numpy_seed(seed + epoch):
                indices = dataset.ordered_indices()
            if max_positions is not None:
                indices = self.filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)
            if not len(indices):
                raise DataError(
                    f"split {captions.split!r}: all captions are longer than the model's --max-target-positions (the "
                    f"shortest has {captions.sizes.min()} tokens with the end of sentence)"
                )
            batches = dataset.batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
            return take_turns(
                batches,
                epoch=epoch if captions.shuffle else 0,  # validation's masks stay the same
                objectives=1 if captions.joint else len(captions.objectives),
                block=num_shards * (self._update_freq(epoch) if captions.shuffle else 1),
                code=captions.code,
                rng=np.random.default_rng([seed, epoch]) if captions.shuffle else None,
            )

        iterator = EpochBatchIterator(
            dataset=dataset,
            collate_fn=dataset.collater,
            batch_sampler=draw_batches,
            seed=seed,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
            buffer_size=data_buffer_size,
            disable_shuffling=True,  # the turns are in order already
            skip_remainder_batch=skip_remainder_batch,
            reuse_dataloader=True,
            persistent_workers=True,
        )
        if not disable_iterator_cache:
            self.dataset_to_epoch_iter[dataset] = iterator
        return iterator

    def _update_freq(self, epoch: int) -> int:
        """--update-freq of *epoch* (1, 2, …): a number for each epoch, the last for all that follow."""
        freq = self.cfg.update_freq
        freq = [freq] if isinstance(freq, int) else list(freq)
        return freq[min(epoch, len(freq)) - 1]

    @property
    def joint(self) -> bool:
        """Whether all objectives share one update."""
        return False

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> Any:
        """Build the model, and the greedy search that validates it (section 5.3)."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.eval_captions:
            self._greedy = self.build_generator([model], Namespace(beam=1))
        return model

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """fairseq's generator; it never emits symbols that are no words (`<mask>`, `<s>`, dictionary padding)."""
        if getattr(args, "constraints", False) and not self.cfg.constraints_file:
            raise DataError("--constraints needs --constraints-file FILE: image ids and the phrases to generate")
        if getattr(args, "print_alignment", None):
            raise DataError("--print-alignment: captions have no source words that they could be aligned with")
        not_words = [MASK, self.target_dictionary.bos_word]
        not_words += [symbol for symbol in self.target_dictionary.symbols if symbol.startswith("madeupword")]
        extra = {**(extra_gen_cls_kwargs or {}), "tokens_to_suppress": not_words}
        generator = super().build_generator(
            models,
            args,
            seq_gen_cls=seq_gen_cls,
            extra_gen_cls_kwargs=extra,
            prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        )
        if getattr(generator, "repeat_ngram_blocker", None) is not None:
            generator.repeat_ngram_blocker = RepeatBlock(args.no_repeat_ngram_size)
        return generator

    def inference_step(
        self,
        generator: Any,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Any = None,
        constraints: Any = None,
    ) -> Any:
        """Search captions for a batch of images: for each image its hypotheses, best first."""
        sample = sample_for_search(sample, generator)
        return super().inference_step(generator, models, sample, prefix_tokens=prefix_tokens, constraints=constraints)

    def build_tokenizer(self, args: Any) -> Any:
        """None unless one is named: the vocabulary undoes tokenization together with BPE."""
        return super().build_tokenizer(args)

    def build_bpe(self, args: Any) -> Any:
        """The data directory's vocabulary, which decodes to text as a person writes it; or the BPE that is named."""
        return super().build_bpe(args) or self.vocabulary

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Refuse a way of distribution that fails, without saying why, where an objective leaves parameters out."""
        root = self.cfg._get_root() if OmegaConf.is_config(self.cfg) else {}
        distributed = root.get("distributed_training")
        if (
            distributed is not None
            and distributed.distributed_world_size > 1
            and str(distributed.ddp_backend) in ("c10d", "pytorch_ddp")
            and not distributed.find_unused_parameters
        ):
            raise DataError(
                "several processes need --ddp-backend legacy_ddp (or --find-unused-parameters): not every objective "
                "reaches all parameters"
            )

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Step with a gradient of 0, not none, where the update's objective did not reach a parameter.

        legacy_ddp and FP16 give such parameters a gradient of 0, so that Adam's moments decay; a single process in
        float32 would leave them alone, and the number of processes would change the result.
        """
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        super().optimizer_step(optimizer, model, update_num)

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple[Any, Any, dict[str, Any]]:
        """The loss of the criterion and, with --eval-captions, what the metrics of greedy captions sum."""
        loss, sample_size, log = super().valid_step(sample, model, criterion)
        if self.cfg.eval_captions:
            scored = sample["objective"] in ("ic", "joint")
            log.update(self._score_greedy_captions(sample) if scored else dict.fromkeys(SUMS, 0.0))
        return loss, sample_size, log

    def _score_greedy_captions(self, sample: dict[str, Any]) -> dict[str, float]:
        scorer = self._scorers.get(sample["split"])
        if scorer is None:
            raise DataError(f"--eval-captions cannot validate on {sample['split']!r}, the subset that trains")
        net_input = sample["parts"][0]["net_input"] if sample["objective"] == "joint" else sample["net_input"]
        images = {name: net_input[name] for name in ("features", "boxes", "padding_mask")}
        with torch.no_grad():
            hypotheses = self._greedy.generate([], {"net_input": images})
        captions = [self.to_text(hypothesis[0]["tokens"]) for hypothesis in hypotheses]
        return scorer.add(sample["id"].tolist(), captions)

    def to_text(self, tokens: torch.Tensor) -> str:
        """Generated token ids (T,) → text."""
        return self.vocabulary.decode(self.target_dictionary.string(tokens.int().cpu()))

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """The criterion's metrics and, where captions were generated, cider and bleu4 (1 is 100 % in both)."""
        super().reduce_metrics(logging_outputs, criterion)
        names = [name for name in logging_outputs[0] if name.startswith("_")] if logging_outputs else []
        if not names:
            return
        for name in names:
            metrics.log_scalar_sum(name, sum(float(log[name]) for log in logging_outputs))

        def sums(meters: Any) -> dict[str, float]:
            return {name: meters[name].sum for name in names}

        metrics.log_derived("cider", lambda meters: round(OnlineScorer.cider(sums(meters)), 4))
        metrics.log_derived("bleu4", lambda meters: round(OnlineScorer.bleu4(sums(meters)), 4))
