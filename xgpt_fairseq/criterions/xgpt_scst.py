"""The criterion `xgpt_scst`: self-critical sequence training (Rennie et al. 2017), which optimises CIDEr-D directly.

Captions are sampled from the model, or those of a beam search are taken for samples (Cornia et al. 2020, section 3.3),
and the log-probability of each is raised or lowered by its advantage, its reward less a baseline: the mean reward of
the image's other samples (Luo 2020, "A better variant of self-critical sequence training"), or that of the greedy
caption (Rennie et al.). Validation is that of the criterion `xgpt`.
"""

import copy
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import II
from torch import Tensor

from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.criterions.scst_log import LOGGED, SampleLog, log_samples
from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion, XGPTCriterionConfig
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.metrics.ngrams import NgramScorer
from xgpt_fairseq.metrics.word_ids import WordIds
from xgpt_fairseq.models.encoder import IMAGE_INPUTS
from xgpt_fairseq.models.transfer import LoadMode
from xgpt_fairseq.precision import forget_casts
from xgpt_fairseq.search.beam_search import CaptionGenerator
from xgpt_fairseq.search.generator import adapt, vocabulary_arguments
from xgpt_fairseq.search.seeded_sampling import SeededSampling

logger = logging.getLogger(__name__)

BASELINE = ChoiceEnum(["mean", "greedy"])
CANDIDATES = ChoiceEnum(["sample", "beam"])


@dataclass
class XGPTSCSTConfig(XGPTCriterionConfig):
    scst_samples: int = field(default=5, metadata={"help": "captions per image"})
    scst_candidates: CANDIDATES = field(  # type: ignore[valid-type]
        default="sample",
        metadata={
            "help": "sample: captions drawn from the model; beam: those of a beam search with as many beams (Cornia et "
            "al. 2020), where samples are far worse than the best caption"
        },
    )
    scst_temperature: float = field(
        default=1.0, metadata={"help": "of the distribution that is drawn from and optimised; below 1: nearer the best"}
    )
    scst_baseline: BASELINE = field(  # type: ignore[valid-type]
        default="mean",
        metadata={"help": "mean: of the image's other samples (Luo 2020); greedy: of its greedy caption (Rennie 2017)"},
    )
    scst_max_len: int = field(default=30, metadata={"help": "longest sample in tokens"})
    scst_bleu_weight: float = field(default=0.0, metadata={"help": "weight of BLEU@4 in the reward, beside CIDEr-D"})
    scst_entropy: float = field(default=0.0, metadata={"help": "weight of the entropy, which is to stay high"})
    scst_kl: float = field(
        default=0.0,
        metadata={"help": "weight of the distance (KL per caption) from the model that training starts from"},
    )
    seed: int = II("common.seed")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")


@register_criterion("xgpt_scst", dataclass=XGPTSCSTConfig)
class XGPTSCSTCriterion(XGPTCriterion):
    """Minus the expected reward of the model's captions, by samples; fairseq divides by the number of samples."""

    def __init__(
        self,
        task: Any,
        label_smoothing: float,
        sentence_avg: bool,
        scst_samples: int,
        scst_candidates: str,
        scst_temperature: float,
        scst_baseline: str,
        scst_max_len: int,
        scst_bleu_weight: float,
        scst_entropy: float,
        scst_kl: float,
        seed: int,
        finetune_from_model: str | None = None,
    ) -> None:
        super().__init__(task, label_smoothing, sentence_avg)
        if list(task.objectives) != ["ic"]:
            raise DataError("--criterion xgpt_scst trains image captioning alone: it needs --task xgpt_caption")
        check_at_least("--scst-samples", scst_samples, 2 if str(scst_baseline) == "mean" else 1)
        check_at_least("--scst-max-len", scst_max_len, 1)
        for name, value in (("bleu-weight", scst_bleu_weight), ("entropy", scst_entropy), ("kl", scst_kl)):
            if not (value >= 0 and math.isfinite(value)):
                raise DataError(f"--scst-{name} must be at least 0, got {value}")
        if not (scst_temperature > 0 and math.isfinite(scst_temperature)):
            raise DataError(f"--scst-temperature must be more than 0, got {scst_temperature}")
        self.samples = scst_samples
        self.beam = str(scst_candidates) == "beam"
        self.temperature = scst_temperature
        self.greedy_baseline = str(scst_baseline) == "greedy"
        self.max_len = scst_max_len
        self.bleu_weight = scst_bleu_weight
        self.entropy_weight = scst_entropy
        self.kl_weight = scst_kl
        self.seed = seed
        self.update = 0
        self._words = WordIds(task.vocabulary)
        self._log = SampleLog(self._words, task.vocabulary, self.padding_idx)
        self._scorer: NgramScorer | None = None
        self._generators: tuple[SequenceGenerator, SequenceGenerator] | None = None
        self._never: Tensor | None = None  # the symbols that the search suppresses, on the model's device
        self._start_file = finetune_from_model
        # The model that training starts from, for KL. In a tuple it is no module of the criterion's: fairseq would turn
        # its dropout on with each update, and keep it in each checkpoint.
        self._start: tuple[Any] | None = None

    def set_num_updates(self, update: int) -> None:
        """Which update follows; draws depend on it."""
        self.update = update

    def forward(
        self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """Loss (scalar, summed over samples), number of samples, and the log, whose values are sums."""
        if not model.training:
            return super().forward(model, sample, reduce)
        images = {name: value for name, value in sample["net_input"].items() if name in IMAGE_INPUTS}
        began = time.perf_counter()
        tokens = self._sample(model, images, sample["id"])  # (B, S, T)
        greedy = self._greedy(model, images).cpu() if self.greedy_baseline else None  # (B, 1, T)
        # All that the host needs for rewards, before the kernels of `_score` are queued: it would wait for those, too.
        ids, drawn = sample["id"].cpu(), tokens.cpu()  # (B,), (B, S, T)
        at = self._drawn_at(drawn.flatten(0, 1)).to(tokens.device)  # (P,)
        sampled = time.perf_counter()
        logp, entropy, kl = self._score(model, images, tokens.flatten(0, 1), at)  # on GPUs, while rewards are computed
        scored = time.perf_counter()
        reward = self._reward(ids, drawn)  # (B, S)
        if greedy is not None:
            baseline = self._reward(ids, greedy).expand_as(reward)
        else:
            baseline = (reward.sum(dim=1, keepdim=True) - reward) / (reward.size(1) - 1)
        rewarded = time.perf_counter()
        # Here the host waits for the scores, as it does for the log's numbers below.
        advantage = (reward - baseline).to(logp.device).float().flatten()  # (B S,)
        loss = -(advantage * logp).sum()
        if self.entropy_weight:
            loss = loss - self.entropy_weight * entropy.sum()
        if self.kl_weight:
            loss = loss + self.kl_weight * kl.sum()
        log: dict[str, Any] = {f"scst_{name}": 0.0 for name in LOGGED}
        log |= self._log.describe(drawn, self._ended(drawn.flatten(0, 1).numpy()))
        log |= {
            "loss": loss.detach(),
            "ntokens": len(at),
            "nsentences": reward.numel(),
            "sample_size": reward.numel(),
            "scst_reward": float(reward.sum()),
            "scst_baseline": float(baseline.sum()),
            "scst_entropy": float(entropy.detach().sum()),
            "scst_kl": float(kl.detach().sum()),
            "scst_sampling_s": sampled - began,
            "scst_reward_s": rewarded - scored,
            "scst_batches": 1,
        }
        return loss, reward.numel(), log

    @torch.no_grad()
    def _sample(self, model: Any, images: dict[str, Tensor], ids: Tensor) -> Tensor:
        """Captions of the model without dropout, drawn or the best: (B, S, T) with end of sentence, padded."""
        generator, _ = self._build(model)
        if not self.beam:
            generator.search.update = self.update
        return self._generate(model, generator, images, None if self.beam else ids)

    @torch.no_grad()
    def _greedy(self, model: Any, images: dict[str, Tensor]) -> Tensor:
        """(B, 1, T)"""
        return self._generate(model, self._build(model)[1], images, None)

    def _generate(
        self, model: Any, generator: SequenceGenerator, images: dict[str, Tensor], ids: Tensor | None
    ) -> Tensor:
        model.eval()
        try:
            found = generator.generate([], {"net_input": images} | ({} if ids is None else {"id": ids}))
        finally:
            model.train()
            forget_casts()  # the same weights are trained next
        texts = [hypothesis["tokens"] for of_image in found for hypothesis in of_image]
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=self.padding_idx)
        return padded.view(len(found), -1, padded.size(1))

    def _build(self, model: Any) -> tuple[SequenceGenerator, SequenceGenerator]:
        if self._generators is None:
            bare = _bare(model)
            longest = bare.max_decoder_positions() - 1  # the generator's, which sets the end of what is longer
            if self.max_len > longest:
                logger.warning(
                    f"--scst-max-len {self.max_len} is longer than the model's captions: they are cut after {longest} "
                    f"tokens (--max-target-positions {longest + 1}, of which one is the end)"
                )
                self.max_len = longest
            dictionary = self.task.target_dictionary
            # an empty caption may be drawn, as the model has it: its log-probability is that of the whole vocabulary
            options: dict[str, Any] = {"max_len_b": self.max_len, "min_len": 0, "temperature": self.temperature}
            options |= vocabulary_arguments(self.task.vocabulary)
            sampling = None if self.beam else SeededSampling(dictionary, self.seed)
            built = []
            for beam, search in ((self.samples, sampling), (1, None)):
                built.append(CaptionGenerator([bare], dictionary, beam_size=beam, search_strategy=search, **options))
                adapt(built[-1])
            self._generators = built[0], built[1]
            self._never = built[0].token_indices_to_suppress.to(next(bare.parameters()).device)
        return self._generators

    def _drawn_at(self, tokens: Tensor) -> Tensor:
        """(P,) flat positions of the tokens (M, T) that were drawn: not padding, nor the end that the limit sets."""
        drawn = tokens.ne(self.padding_idx)
        drawn[:, self.max_len :] = False
        return drawn.flatten().nonzero().squeeze(1)

    def _score(
        self, model: Any, images: dict[str, Tensor], tokens: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of captions, in one pass over given texts. The host waits for nothing of it.

        Args:
            tokens: (M, T) with end of sentence, padded; as many of each image.
            at: (P,) which of them were drawn (`_drawn_at`).

        Returns:
            tuple: log-probability of each caption (M,); its entropy, summed over tokens (M,); the same of the KL
            divergence from the start (M,).
        """
        eos, pad = self.task.target_dictionary.eos(), self.padding_idx
        previous = torch.cat([tokens.new_full((len(tokens), 1), eos), tokens[:, :-1]], dim=1)
        previous = previous.masked_fill(tokens.eq(pad), pad)
        inputs = {**images, "prev_output_tokens": previous, "output_index": at}
        logits, _ = model(**inputs)  # (P, V)
        log_probabilities = self._normalised(logits)
        target = tokens.flatten().index_select(0, at)
        caption = at // tokens.size(1)
        zeros = log_probabilities.new_zeros(len(tokens))
        logp = zeros.index_add(0, caption, log_probabilities.gather(1, target[:, None]).squeeze(1))
        probabilities = log_probabilities.exp() if self.entropy_weight else log_probabilities.detach().exp()
        finite = log_probabilities.masked_fill(probabilities == 0, 0)
        entropy = zeros.index_add(0, caption, -(probabilities * finite).sum(dim=1))
        kl = zeros
        if self.kl_weight:
            with torch.no_grad():
                start = self._normalised(self._start_model(model)(**inputs)[0])
            difference = (finite - start.masked_fill(probabilities == 0, 0)) * log_probabilities.exp()
            kl = zeros.index_add(0, caption, difference.sum(dim=1))
        return logp, entropy, kl

    def _normalised(self, logits: Tensor) -> Tensor:
        """Log-probabilities (P, V) of what can be drawn: the symbols that the search suppresses cannot."""
        assert self._never is not None
        log_probabilities = (logits.float() / self.temperature).log_softmax(dim=-1)
        allowed = log_probabilities.index_fill(1, self._never, -math.inf)
        allowed[:, self.padding_idx] = -math.inf
        return allowed.log_softmax(dim=-1)

    def _start_model(self, model: Any) -> Any:
        """The model that training started from, of its file: the same in a training that was resumed."""
        if self._start is None:
            start = copy.deepcopy(_bare(model)).eval().requires_grad_(False)
            if self._start_file:
                start.load_mode = LoadMode.START
                start.load_state_dict(load_checkpoint(Path(self._start_file))["model"])
            elif self.update > 1:
                raise DataError("--scst-kl: a resumed training needs the model it started from (--finetune-from-model)")
            self._start = (start,)
        return self._start[0]

    def _reward(self, ids: Tensor, tokens: Tensor) -> Tensor:
        """(B, S) CIDEr-D, and BLEU@4 by its weight, of captions (B, S, T) of images *ids* (B,), both on the host."""
        if self._scorer is None:
            self._scorer = _reference_scorer(self.task, self._words)
        array = tokens.flatten(0, 1).numpy()
        words, lengths = self._words(array, with_end=self._ended(array))
        images = np.repeat(ids.numpy(), tokens.size(1))
        cider, bleu = self._scorer.score(words, lengths, images)
        return torch.from_numpy(cider + self.bleu_weight * bleu).view(tokens.shape[:2])

    def _ended(self, tokens: np.ndarray) -> np.ndarray:
        """(M,) whether captions (M, T) end by themselves, not by the limit."""
        lengths = (tokens != self.padding_idx).sum(axis=1)
        return lengths <= self.max_len

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log what is known of the samples, in training; see `XGPTCriterion.reduce_metrics` for validation."""
        if not log_samples(logging_outputs):
            super().reduce_metrics(logging_outputs)


def _bare(model: Any) -> Any:
    """The model itself, within the wrappers of several processes: those of DDP, and fairseq's around them."""
    while hasattr(model, "module"):
        model = model.module
    return model


def _reference_scorer(task: Any, words: WordIds) -> NgramScorer:
    """The scorer of the training split, whose references are its captions as they were encoded."""
    captions, images = task.training_captions()
    found = [words(tokens, with_end=np.ones(len(tokens), dtype=bool)) for tokens in captions]
    every, lengths = (np.concatenate(each) for each in zip(*found, strict=True))
    del found  # the scorer is a matter of memory
    return NgramScorer(every, lengths, images)
