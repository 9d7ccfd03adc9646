"""Beam search that the host doesn't wait for: fairseq's plain search, in fewer and cheaper steps.

fairseq's generator asks the device in each step which captions have ended, moves every beam's tokens and scores, and
takes ended images out. Here a step only appends to lists of tensors (`Trace`). Every few steps the host looks which
images are done; the hypotheses are put together at the end. The results are fairseq's: the same hypotheses with the
same scores (tests/search/test_beam_search.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.search import BeamSearch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.kernels.switch import fast
from xgpt_fairseq.models.decoder import XGPTDecoder
from xgpt_fairseq.search.hypotheses import Rules, Trace

STEPS_UNSEEN = 8  # on a GPU, between two looks at what has ended: a look waits until the GPU has computed all steps


class CaptionGenerator(SequenceGenerator):
    """fairseq's generator with the beam search of this module, where nothing but plain beam search is asked for.

    Sampling, diverse beams, constraints, prefixes, blocked repetitions and language models are left to fairseq's own,
    as is everything with `XGPT_KERNELS=plain`.

    Args:
        no_early_stop: see `Rules.early_stop`.
        steps_unseen: see `Rules`; None: 1 on a CPU, where looking costs nothing, else `STEPS_UNSEEN`.

    Raises:
        DataError: *no_early_stop* with a search that is left to fairseq.
    """

    def __init__(
        self, *arguments: Any, no_early_stop: bool = False, steps_unseen: int | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.no_early_stop = no_early_stop
        self.steps_unseen = steps_unseen
        if no_early_stop:
            self._check_plain()

    @property
    def is_plain(self) -> bool:
        """Whether its search is the one of this module."""
        return (
            fast()
            and type(self.search) is BeamSearch
            and all(isinstance(model.decoder, XGPTDecoder) for model in self.model.models)
            and self.lm_model is None
            and self.repeat_ngram_blocker is None
            and not self.match_source_len
            and self.unk_penalty == 0
            and 2 * self.beam_size < self.vocab_size
        )

    def _check_plain(self) -> None:
        if not self.is_plain:
            raise DataError(
                "--no-early-stop is for plain beam search: leave out sampling, diverse beams, --constraints, "
                "--no-repeat-ngram-size, --match-source-len, --unkpen, a language model and XGPT_KERNELS=plain"
            )

    def _generate(
        self,
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
        bos_token: int | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """The hypotheses of each image, best first; see fairseq's."""
        others = [prefix_tokens, constraints, bos_token]
        if not self.is_plain or any(each is not None for each in others):
            if self.no_early_stop:
                self._check_plain()
                raise DataError("--no-early-stop is for plain beam search: leave --prefix-size and --constraints out")
            return super()._generate(sample, prefix_tokens, constraints, bos_token)
        images = sample["net_input"]["features"]  # (I, N, D)
        longest = min(int(self.max_len_a * images.size(1) + self.max_len_b), self.max_len - 1)
        assert self.min_len <= longest, "min_len cannot be larger than max_len, please adjust these!"  # as fairseq
        suppressed = self.token_indices_to_suppress
        never = [self.pad] + ([] if suppressed is None else suppressed.tolist())
        rules = Rules(
            beam=self.beam_size,
            shortest=self.min_len,
            longest=longest,
            eos=self.eos,
            never=torch.tensor(never, device=images.device),
            temperature=self.temperature,
            normalize=self.normalize_scores,
            lenpen=self.len_penalty,
            early_stop=not self.no_early_stop,
            steps_unseen=self.steps_unseen or (1 if images.device.type == "cpu" else STEPS_UNSEEN),
        )
        decoders = [model.decoder for model in self.model.models]
        return search(decoders, self.model.forward_encoder(sample["net_input"]), rules)


def search(
    decoders: Sequence[XGPTDecoder], encoded: Sequence[dict[str, Any]], rules: Rules
) -> list[list[dict[str, Tensor]]]:
    """Beam search with several models, by their mean probabilities.

    Args:
        encoded: by model, what its encoder says of the images.

    Returns:
        list: by image, its best hypotheses, best first, as fairseq's generator has them: up to B with *early_stop*.
    """
    begun = [
        decoder.begin_search(each, beam=rules.beam, longest=rules.longest + 1)
        for decoder, each in zip(decoders, encoded, strict=True)
    ]
    memories, caches = [memory for memory, _ in begun], [cache for _, cache in begun]
    images, device = caches[0].images, rules.never.device
    tokens = torch.full((images, rules.beam), rules.eos, device=device)  # (I, B) the newest of each row
    sums = torch.zeros(images, rules.beam, device=device)  # (I, B) log-probability of each row so far
    progress = Progress(images, rules, device)
    trace = Trace(images, device)
    for step in range(rules.longest + 1):
        logits = [
            decoder.next_words(tokens, memory, cache)
            for decoder, memory, cache in zip(decoders, memories, caches, strict=True)
        ]
        scores = allowed(log_probabilities(logits, rules.temperature), step, rules)  # (I, B, V)
        vocabulary = scores.size(2)
        # at first all rows of an image are the same
        scores = scores[:, 0] if step == 0 else scores.add_(sums[..., None]).flatten(1)  # (I, V or B · V)
        values, places = scores.topk(2 * rules.beam)  # (I, 2B): at most B of them end
        ends = (places % vocabulary == rules.eos) & (values > -math.inf)
        going_on = ends.sort(dim=1, stable=True).indices[:, : rules.beam]  # (I, B) the best that don't
        trace.add(values, places, going_on)
        sums = values.gather(1, going_on)
        places = places.gather(1, going_on)
        tokens, rows = places % vocabulary, places // vocabulary
        progress.add(step, values[:, : rules.beam], ends[:, : rules.beam], sums)
        if step == rules.longest:
            break
        if (step + 1) % rules.steps_unseen == 0 and any(done := progress.done.tolist()):
            left = torch.tensor([image for image, is_done in enumerate(done) if not is_done], device=device)
            if not len(left):
                break
            tokens, rows, sums = (each.index_select(0, left) for each in (tokens, rows, sums))
            memories = [memory.kept(left) for memory in memories]
            progress.keep(left)
            trace.keep(left)
            for cache in caches:
                cache.keep(left)
        for cache in caches:
            cache.go_on_from(rows)
    return trace.hypotheses(vocabulary, rules)


def log_probabilities(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Of each model's logits (I, B, V) the mean probability's logarithm, in float32."""
    each = [F.log_softmax(x if temperature == 1 else x / temperature, dim=-1, dtype=torch.float32) for x in logits]
    return each[0] if len(each) == 1 else torch.logsumexp(torch.stack(each), dim=0) - math.log(len(each))


def allowed(scores: Tensor, step: int, rules: Rules) -> Tensor:
    """*scores* (I, B, V), which are changed: minus infinity for tokens that may not follow after *step* tokens."""
    if step == rules.longest:
        only = torch.full_like(scores, -math.inf)
        only[..., rules.eos] = scores[..., rules.eos]
        return only
    scores.index_fill_(2, rules.never, -math.inf)
    if step < rules.shortest:
        scores[..., rules.eos] = -math.inf
    return scores


class Progress:
    """Which images are done, kept on the device."""

    def __init__(self, images: int, rules: Rules, device: torch.device) -> None:
        self._rules = rules
        self._found = torch.zeros(images, dtype=torch.long, device=device)  # hypotheses of each image
        self._best = torch.full(
            (images, rules.beam), -math.inf, device=device
        )  # scores of the best, without early_stop
        self._reach = self._best[:, 0]  # what an unfinished hypothesis may reach

    def add(self, step: int, values: Tensor, ends: Tensor, sums: Tensor) -> None:
        """Add a step: the best candidates' *values* (I, B), which of them end, and *sums* (I, B) of what goes on."""
        rules = self._rules
        if rules.early_stop:
            self._found = self._found + ends.sum(dim=1)
            return
        scores = torch.where(ends, values / rules.divisor(step + 1), -math.inf)
        self._best = torch.cat([self._best, scores], dim=1).topk(rules.beam).values
        # a sum only falls, and is negative: divided by the longest length, or by the next one if lengths are punished
        self._reach = sums[:, 0] / max(rules.divisor(step + 2), rules.divisor(rules.longest + 1))

    @property
    def done(self) -> Tensor:
        """(I,) whether the hypotheses of an image are final."""
        return self._found >= self._rules.beam if self._rules.early_stop else self._best[:, -1] >= self._reach

    def keep(self, images: Tensor) -> None:
        """Drop all but *images* (n,)."""
        self._found, self._best, self._reach = (
            each.index_select(0, images) for each in (self._found, self._best, self._reach)
        )
