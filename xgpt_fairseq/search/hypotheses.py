"""The rules of a beam search, what it did step by step, and the hypotheses that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.errors import DataError


@dataclass(frozen=True)
class Rules:
    """What a search may do.

    Attributes:
        beam: B, rows of an image.
        shortest, longest: numbers of tokens of a caption, without the end of sentence.
        eos: the end of sentence, also what captions begin after.
        never: (n,) tokens that no caption has.
        temperature: logits are divided by it.
        normalize: whether a score is divided by the length, with the end, to the power of *lenpen*.
        early_stop: an image is done when it has B hypotheses, as in fairseq; else, when no unfinished one can become
            better than the worst of the best B.
        steps_unseen: steps between two looks at which images are done.
    """

    beam: int
    shortest: int
    longest: int
    eos: int
    never: Tensor
    temperature: float
    normalize: bool
    lenpen: float
    early_stop: bool
    steps_unseen: int

    def divisor(self, length: int) -> float:
        """What the log-probability of a caption of *length* tokens with the end of sentence is divided by."""
        return float(length**self.lenpen) if self.normalize else 1.0


class Trace:
    """Keeps each step's candidates on the device; copies them to the host once, at the end.

    Args:
        images: I.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        self.images = images
        self._device = device
        self._image = torch.arange(images, device=device)  # of each row of what `add` gets
        self._steps: list[tuple[Tensor, ...]] = []

    def add(self, values: Tensor, places: Tensor, going_on: Tensor) -> None:
        """Add a step.

        Args:
            values: (I, 2B) log-probabilities of the best candidates, the first best.
            places: (I, 2B) the row that a candidate continues, times the size of the vocabulary, plus its token.
            going_on: (I, B) which candidates become the rows of the next step.
        """
        self._steps.append((values, places, going_on, self._image))

    def keep(self, images: Tensor) -> None:
        """From now on, there are only *images* (n,) of those before."""
        self._image = self._image.index_select(0, images)

    def hypotheses(self, vocabulary: int, rules: Rules) -> list[list[dict[str, Tensor]]]:
        """The hypotheses of each image, best first, as fairseq's generator has them.

        Args:
            vocabulary: V, its size.

        Raises:
            DataError: the model's probabilities are not numbers.
        """
        values, places, going_on = self._on_the_host()  # (steps, I, 2B), (steps, I, 2B), (steps, I, B)
        if np.isnan(values).any():
            raise DataError(
                "the model's probabilities are not numbers (NaN): its weights are broken, or too large for this "
                "precision"
            )
        tokens, parents = places % vocabulary, places // vocabulary
        ends = (tokens == rules.eos) & np.isfinite(values)
        found: list[list[tuple[float, int, int]]] = [[] for _ in range(self.images)]  # score, step, candidate
        for step, image, candidate in np.argwhere(ends[:, :, : rules.beam]).tolist():
            score = float(values[step, image, candidate] / np.float32(rules.divisor(step + 1)))
            if not rules.early_stop or len(found[image]) < rules.beam:
                found[image].append((score, step, candidate))
        best = [sorted(each, key=lambda one: -one[0])[: rules.beam] for each in found]
        texts, sums = backtrace(
            *(np.take_along_axis(each, going_on, axis=2) for each in (tokens, parents, values)),
            image=np.repeat(np.arange(self.images), [len(each) for each in best]),
            step=np.array([step for each in best for _, step, _ in each], dtype=np.int64),
            row=np.array([parents[s, image, c] for image, each in enumerate(best) for _, s, c in each], dtype=np.int64),
        )
        flat = [(image, *one) for image, each in enumerate(best) for one in each]
        for number, (image, _, step, candidate) in enumerate(flat):
            texts[number, step], sums[number, step] = rules.eos, values[step, image, candidate]
        return self._as_fairseq(texts, np.diff(sums, axis=1, prepend=np.float32(0)), best)

    def _on_the_host(self) -> list[np.ndarray]:
        """Of each step, for all images: values, places, and what goes on; zeros where an image was done."""
        step = np.repeat(np.arange(len(self._steps)), [len(values) for values, *_ in self._steps])
        *parts, image = (torch.cat(each).cpu().numpy() for each in zip(*self._steps, strict=True))
        whole = [np.zeros((len(self._steps), self.images, part.shape[1]), dtype=part.dtype) for part in parts]
        for each, part in zip(whole, parts, strict=True):
            each[step, image] = part
        return whole

    def _as_fairseq(
        self, texts: np.ndarray, scores: np.ndarray, best: Sequence[Sequence[tuple[float, int, int]]]
    ) -> list[list[dict[str, Tensor]]]:
        all_tokens, all_scores = (torch.from_numpy(each).to(self._device) for each in (texts, scores))
        totals = torch.tensor([score for each in best for score, *_ in each], device=self._device)
        none = torch.empty(0)
        rows = iter(zip(all_tokens, all_scores, totals, strict=True))
        found: list[list[dict[str, Tensor]]] = []
        for each in best:
            found.append([])
            for _, step, _ in each:
                tokens, of_tokens, total = next(rows)
                found[-1].append(
                    {
                        "tokens": tokens[: step + 1],
                        "score": total,
                        "attention": none,
                        "alignment": none,
                        "positional_scores": of_tokens[: step + 1],
                    }
                )
        return found


def backtrace(
    tokens: np.ndarray, parents: np.ndarray, sums: np.ndarray, *, image: np.ndarray, step: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Read texts from their ends.

    Args:
        tokens, parents, sums: (steps, I, B) the token that each row got, the row before it, and its log-probability.
        image, step, row: (n,) where each text ends: it has the rows before *step*, the last of them *row*.

    Returns:
        tuple: tokens and sums of the texts, (n, steps) each, up to *step*.
    """
    texts = np.zeros((len(image), len(tokens)), dtype=tokens.dtype)
    so_far = np.zeros(texts.shape, dtype=sums.dtype)
    for place in reversed(range(len(tokens))):
        on = np.flatnonzero(place < step)
        at = place, image[on], row[on]
        texts[on, place], so_far[on, place] = tokens[at], sums[at]
        row[on] = parents[at]
    return texts, so_far
