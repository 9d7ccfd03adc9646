"""What the tasks share: objectives, the order of batches, the optimizer's step, and what a model starts from."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data import BaseWrapperDataset
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING

from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
from xgpt_fairseq.data.epoch_batches import EpochBatches, too_long_error, turns
from xgpt_fairseq.data.epoch_iterator import UpdateIterator
from xgpt_fairseq.data.schedule import batches_of_update
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.transfer import LoadMode
from xgpt_fairseq.models.xgpt import ARCHITECTURES, XGPTModel
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, build_objectives
from xgpt_fairseq.precision import autocast, check_cpu_bfloat16
from xgpt_fairseq.programs.memory import memory_holds_the_batch
from xgpt_fairseq.programs.names import fairseq_program, trains
from xgpt_fairseq.programs.peers import begin_together, limit_waiting
from xgpt_fairseq.programs.training_logs import keep_one_file
from xgpt_fairseq.tasks import early_stop
from xgpt_fairseq.tasks.checks import (
    check_cpu_precision,
    check_processes,
    check_run,
    finetune_from,
    root_config,
    uses_gpu,
)
from xgpt_fairseq.tasks.finite import RepeatedBatches, refuse_not_finite
from xgpt_fairseq.tasks.gradient_log import GradientLog
from xgpt_fairseq.tasks.limits import value_of
from xgpt_fairseq.tasks.options import check_metric, values_of
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.whole_checkpoints import WholeCheckpoints
from xgpt_fairseq.workarounds import BestCheckpoints, load_checkpoints_on_all_ranks

logger = logging.getLogger(__name__)

SCHEDULE = ChoiceEnum(["turns", "joint"])


@dataclass
class XGPTTaskConfig(FairseqDataclass):
    data: str = field(default=MISSING, metadata={"help": "data directory (see preprocess/)"})
    cpu_bf16: bool = field(
        default=False,
        metadata={"help": "on a CPU with bfloat16 arithmetic, multiply matrices in it; weights, softmax and loss stay "
                  "float32 (on GPUs: --bf16 or --fp16)"},
    )  # fmt: skip
    log_config: bool = field(
        default=False, metadata={"help": "log the whole configuration and the model's modules at the start"}
    )
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    update_freq: Any = II("optimization.update_freq")  # noqa: RUF009  (a string, for fairseq to look up)


@dataclass
class PretrainingConfig(FairseqDataclass):
    """What all tasks of several objectives have; each names its own `objectives`."""

    objective_weights: str = field(
        default="",
        metadata={"help": "weights of the losses, such as ic=1,imlm=0.3,ida=0.3,tifg=0.3 (in domain) [1 each]; an "
                  "objective of weight 0 is left out"},
    )  # fmt: skip
    objective_schedule: SCHEDULE = field(  # type: ignore[valid-type]
        default="turns",
        metadata={"help": "turns: each objective on the same texts, an update of its own (section 4.3); joint: the "
                  "weighted sum of their mean losses in one update, whose batches count by their captions"},
    )  # fmt: skip


class XGPTTask(FairseqTask):
    """A task over a vocabulary and one or several objectives. Its model has their heads.

    Args:
        cfg: the task's configuration.
        vocabulary: the data directory's.
        objective_weights: the objectives that train, in the order of their turns, with their weights.
        joint: whether all objectives share one update.

    Raises:
        DataError: an option has an impossible value, or the CPU lacks what is asked for.
    """

    spare_heads = frozenset(PRETRAINING_OBJECTIVES)  # which a checkpoint may have, and the model does without

    def __init__(
        self,
        cfg: Any,
        vocabulary: Vocabulary,
        *,
        objective_weights: dict[str, float],
        joint: bool = False,
    ) -> None:
        super().__init__(cfg)
        self.vocabulary = vocabulary
        self.objective_weights = objective_weights
        self.objectives = build_objectives(objective_weights, vocabulary.dictionary, values_of(cfg))
        self.joint = joint
        check_metric(cfg.best_checkpoint_metric, self.objectives)
        self._gradients = GradientLog()
        self._batches = RepeatedBatches()
        self._repeats: tuple[int, int | None] | None = None  # see repeat_validation
        self._best_checkpoints = BestCheckpoints(cfg)
        self._whole_checkpoints = WholeCheckpoints(root_config(cfg).get("checkpoint") or {})
        if cfg.cpu_bf16 and not uses_gpu(cfg):
            check_cpu_bfloat16()

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "XGPTTask":
        """Open the data directory, so that what is wrong with it is said before training."""
        begin_together()
        check_run(cfg, from_checkpoint=bool(kwargs.get("from_checkpoint")))
        check_cpu_precision(cfg, from_checkpoint=bool(kwargs.get("from_checkpoint")))
        load_checkpoints_on_all_ranks(cfg)
        return cls.open(cfg)

    @classmethod
    def open(cls, cfg: Any) -> "XGPTTask":
        """The task over the data directory that *cfg* names."""
        raise NotImplementedError(f"{cls.__name__} opens no data directory")

    @property
    def source_dictionary(self) -> None:
        """None: images have no source tokens."""
        return None

    @property
    def target_dictionary(self) -> Any:
        """The dictionary of the texts."""
        return self.vocabulary.dictionary

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """fairseq's hook for the task's options: with them, fairseq's usage of two hundred lines becomes one."""
        super().add_args(parser)
        parser.usage = "%(prog)s DATA [options]   (--help lists them)"

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> Any:
        """Build the model, which knows what the next checkpoint is loaded for.

        fairseq says *from_checkpoint* where a trained model is loaded to be used.

        Raises:
            DataError: a model of fairseq's, which knows nothing of images.
        """
        name = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
        if name is not None and not issubclass(ARCH_MODEL_REGISTRY.get(name, object), XGPTModel):
            raise DataError(f"--arch {name} is no model for this task: {', '.join(ARCHITECTURES)}")
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint:
            model.checkpoint = finetune_from(self.cfg)
            model.load_mode = LoadMode.RESUME if model.checkpoint is None else LoadMode.START
        return model

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the criterion `xgpt`.

        Raises:
            DataError: another one, as fairseq's default is: it would train a loss of its own, and say nothing.
        """
        name = getattr(cfg, "_name", None) or getattr(cfg, "criterion", cfg)  # of YAML, a command line, or a name
        if not issubclass(CRITERION_REGISTRY.get(name, object), XGPTCriterion):
            raise DataError(
                f"--criterion {name} knows nothing of this task's objectives: pass --criterion xgpt (in YAML, "
                "criterion: {_name: xgpt})"
            )
        return super().build_criterion(cfg, from_checkpoint)

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
    ) -> UpdateIterator:
        """Epoch iterator that re-batches each epoch, interleaves objectives, and reuses its worker processes.

        fairseq's own either keeps its batches too, or is built anew for each epoch and then waits up to ten seconds
        for the old one's workers. The order depends on (seed, epoch) alone, so that all ranks and a resumed run agree.
        A training's validation has --max-valid-steps batches on each rank, and no more.
        """
        if grouped_shuffling:
            raise DataError("--grouped-shuffling would tear the turns apart; leave it out")
        texts = dataset.dataset if isinstance(dataset, BaseWrapperDataset) else dataset
        if skip_remainder_batch and turns(texts) > 1:
            raise DataError(
                "--skip-remainder-batch would drop an update of every epoch, its last, which is always of the "
                f"objective {texts.objectives[-1].name}; leave it out"
            )
        if dataset in self.dataset_to_epoch_iter and not (disable_iterator_cache or update_epoch_batch_itr):
            return self.dataset_to_epoch_iter[dataset]
        most = None if texts.shuffle else self._max_valid_steps()
        of_step = 1 if self._repeats is None else self._repeats[0]

        def update_freq(epoch: int) -> int:
            return batches_of_update(self.cfg.update_freq, epoch) if texts.shuffle else of_step

        def fitting(indices: np.ndarray) -> np.ndarray:
            if max_positions is None:
                return indices
            found: np.ndarray = self.filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)
            return found

        draw_batches = EpochBatches(
            texts,
            fitting=fitting,
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            multiple=required_batch_size_multiple,
            seed=seed,
            block=lambda epoch: num_shards * update_freq(epoch),
            most=None if most is None else most * num_shards * of_step,
            leave_out_empty=self._repeats is not None,
        )
        iterator = UpdateIterator(
            update_freq=update_freq,
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

    def filter_indices_by_size(
        self, indices: np.ndarray, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """Leave out items (items,) with a text that is too long for the model: in training, and where it is asked for.

        Raises:
            DataError: there are such items elsewhere, which would be missing in what is validated.
        """
        fit, too_long = dataset.filter_indices_by_size(indices, max_positions)
        if too_long and not ignore_invalid_inputs:
            texts = dataset.dataset if isinstance(dataset, BaseWrapperDataset) else dataset
            limit = max_positions[-1] if isinstance(max_positions, tuple | list) else max_positions
            longest = int(texts.sizes[too_long].max())
            raise too_long_error(
                texts.split, len(too_long), len(indices), limit=limit, longest=longest,
                remedy=f"train with --max-target-positions {longest}, or prepare the data with --max-tokens {limit}. "
                "--skip-invalid-size-inputs-valid-test leaves these items out",
            )  # fmt: skip
        return super().filter_indices_by_size(indices, dataset, max_positions, True) if too_long else fit

    def repeat_validation(self, *, processes: int, steps: int | None) -> None:
        """Let one process validate on the batches that a run's *processes* had, *steps* of each (None: all)."""
        self._repeats = processes, steps

    def _max_valid_steps(self) -> int | None:
        """--max-valid-steps of a training; of fairseq-validate, whose task has its model's configuration, none.

        fairseq turns its back on the iterator after one batch more than that, and the thread that fills its buffer
        then waits for ever, with the batches that it has read: one more at each validation.
        """
        if self._repeats is not None:
            return self._repeats[1]
        if not trains(fairseq_program()):
            return None
        most: int | None = value_of(root_config(self.cfg).get("dataset"), "max_valid_steps")
        return most

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Check how several processes train together (`check_processes`); limit waiting for others; log once."""
        keep_one_file()
        distributed = root_config(self.cfg).get("distributed_training")
        if distributed is not None:
            check_processes(distributed, joint=self.joint and len(self.objectives) > 1)
            limit_waiting(distributed)

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """fairseq's hook before the validation of all subsets."""
        self._best_checkpoints.begin_validation(epoch)

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """fairseq's hook after the validation of a subset."""
        self._best_checkpoints.validated(stats)

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """fairseq's hook before a checkpoint is saved, on the process that saves it: what it keeps of --patience."""
        self._whole_checkpoints.begin()
        kept = early_stop.kept(root_config(self.cfg).get("checkpoint") or {})
        return {type(self).__name__: kept}  # the name by which fairseq finds it again

    def set_checkpoint_dict(self, kept: dict[str, Any]) -> None:
        """fairseq's hook where a training goes on from a checkpoint: what `get_checkpoint_dict` has returned."""
        early_stop.go_on(kept, root_config(self.cfg).get("checkpoint") or {})

    def post_save(self, path: str, num_updates: int) -> None:
        """fairseq's hook after a checkpoint was saved, on the process that saved it."""
        self._whole_checkpoints.saved()
        self._best_checkpoints.saved(Path(path), num_updates)

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, ignore_grad: bool = False
    ) -> Any:
        """fairseq's step, in the precision that was asked for.

        Raises:
            DataError: fairseq runs the batch again, since its gradients were not finite; the GPU's memory is full.
        """
        self._whole_checkpoints.goes_on()
        if not ignore_grad and self._batches.is_repeated(sample, update_num):
            half = next(model.parameters()).dtype == torch.float16
            refuse_not_finite(sample, update_num, diverged=not half)
        with autocast(self.cfg.cpu_bf16), memory_holds_the_batch():
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def valid_step(self, *args: Any, **kwargs: Any) -> Any:
        """fairseq's step, in the precision that was asked for."""
        with autocast(self.cfg.cpu_bf16):
            return super().valid_step(*args, **kwargs)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """The criterion's metrics and, of an update of one objective, that objective's gradient norm."""
        super().reduce_metrics(logging_outputs, criterion)
        trained = [name for name in self.objectives if any(log.get(f"{name}_training") for log in logging_outputs)]
        if len(trained) == 1:
            self._gradients.log(trained[0])

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Step with a gradient of 0, not none, where the update's objective did not reach a parameter.

        legacy_ddp and FP16 give such parameters a gradient of 0, so that Adam's moments decay; a single process in
        float32 would leave them alone, and the number of processes would change the result.
        """
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        super().optimizer_step(optimizer, model, update_num)
