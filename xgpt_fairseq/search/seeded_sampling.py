"""Sampling whose draws depend on the seed, the update, and the image alone: not on the batch, or on other draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fairseq.data import Dictionary
from fairseq.search import Search
from torch import Tensor

from xgpt_fairseq.hashing import mix


class SeededSampling(Search):
    """Draws the next token of each sample from the model's distribution, by one uniform number per token.

    So a run that is resumed, has other batches, or other numbers of processes, draws the same samples of an image.

    Args:
        dictionary: the vocabulary.
        seed: of all draws.

    Attributes:
        update: which update of the training it is.
    """

    def __init__(self, dictionary: Dictionary, seed: int) -> None:
        super().__init__(dictionary)
        self.seed = seed
        self.update = 0

    def uniforms(self, ids: np.ndarray, samples: int, step: int) -> np.ndarray:
        """(B, S) float32 in [0, 1): for images *ids* (B,), each sample, and the token *step*."""
        keys: npt.NDArray[np.uint64] = np.zeros((1, 1), dtype=np.uint64)
        parts: tuple[Any, ...] = (self.seed + 1, self.update, step, ids[:, None], np.arange(samples))
        for part in parts:
            keys = mix(keys + np.asarray(part, dtype=np.uint64))  # (B, S) in the end
        return ((keys >> np.uint64(40)).astype(np.float32)) / np.float32(1 << 24)

    def step(
        self,
        step: int,
        lprobs: Tensor,
        scores: Tensor | None,
        prev_output_tokens: Tensor | None = None,
        original_batch_idxs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose a token for each sample; see fairseq's `Search.step`.

        Args:
            step: 0, 1, …
            lprobs: (B, S, V) log-probabilities.
            scores: (B, S, step) sums of the log-probabilities so far.
            original_batch_idxs: (B,) ids of the images.

        Returns:
            tuple: sums of log-probabilities, tokens, and samples that they continue, (B, S) each.
        """
        images, samples, _ = lprobs.shape
        assert original_batch_idxs is not None
        cumulative = lprobs.float().exp().cumsum(dim=-1)  # (B, S, V)
        total = cumulative[..., -1:]
        drawn = torch.from_numpy(self.uniforms(original_batch_idxs.cpu().numpy(), samples, step)).to(lprobs.device)
        # below the total, also rounded; to the right, so that a token of probability 0 is never hit
        at = torch.minimum(drawn[..., None] * total, torch.nextafter(total, torch.zeros_like(total)))
        tokens = torch.searchsorted(cumulative, at, right=True)  # (B, S, 1)
        found = lprobs.gather(2, tokens).squeeze(2)
        if step > 0:
            assert scores is not None
            found = found + scores[:, :, step - 1]
        beams = torch.arange(samples, device=lprobs.device).expand(images, samples)
        return found, tokens.squeeze(2), beams
