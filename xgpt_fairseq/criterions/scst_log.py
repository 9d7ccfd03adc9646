"""What is known of SCST's samples: logged in each update, with a warning where captions degenerate."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from fairseq.logging import metrics
from torch import Tensor

from xgpt_fairseq.metrics.degeneration import BAD_ENDS, has_repeat
from xgpt_fairseq.metrics.word_ids import WordIds

logger = logging.getLogger(__name__)

# What is logged of the samples of a batch, as sums.
LOGGED = ("samples", "reward", "baseline", "tokens", "distinct", "cut", "repeats", "bad_ends", "entropy", "kl",
          "sampling_s", "reward_s", "batches")  # fmt: skip

# Captions degenerate where these shares have risen by so much, from the first batches to as many of the latest.
_RISE = {"repeats": 0.2, "bad_ends": 0.1}
_WINDOW = 50


class SampleLog:
    """Describes the samples of each batch, and warns where they degenerate.

    Args:
        words: joins the tokens of samples to words.
        vocabulary: of the tokens.
        pad: the padding's token.
    """

    def __init__(self, words: WordIds, vocabulary: Any, pad: int) -> None:
        self._words, self._pad = words, pad
        bad_ends = [words(np.asarray(vocabulary.encode_ids(word))[None])[0][:1] for word in BAD_ENDS]
        self._bad_ends = np.concatenate(bad_ends)
        self._shares: dict[str, list[float]] = {name: [] for name in _RISE}

    def describe(self, tokens: Tensor, ended: np.ndarray) -> dict[str, float]:
        """Sums over the samples of a batch, by the names of `LOGGED`.

        Args:
            tokens: (B, S, T), padded.
            ended: (B * S,) whether a sample ends by itself, not by the limit.
        """
        array = tokens.flatten(0, 1).cpu().numpy()
        words, lengths = self._words(array)
        distinct = sum(len(np.unique(of_image, axis=0)) for of_image in tokens.cpu().numpy())
        bounds = np.cumsum(lengths)
        last = words[np.maximum(bounds - 1, 0)][lengths > 0] if len(words) else words
        captions = np.split(words, bounds[:-1])
        described = {
            "scst_samples": len(array),
            "scst_tokens": float((array != self._pad).sum()),
            "scst_distinct": float(distinct),
            "scst_cut": float((~ended).sum()),
            "scst_repeats": float(sum(has_repeat(caption.tolist()) for caption in captions)),
            "scst_bad_ends": float(np.isin(last, self._bad_ends).sum()),
        }
        self.watch(described)
        return described

    def watch(self, described: dict[str, float]) -> None:
        """Warn, once for each sign, where samples repeat words or break off more often than at the start."""
        for name, shares in list(self._shares.items()):
            shares.append(described[f"scst_{name}"] / described["scst_samples"])
            if len(shares) < 2 * _WINDOW or len(shares) % _WINDOW:
                continue
            before, now = sum(shares[:_WINDOW]) / _WINDOW, sum(shares[-_WINDOW:]) / _WINDOW
            if now - before > _RISE[name]:
                what = "have two successive words twice" if name == "repeats" else 'end in "a", "of" and the like'
                logger.warning(
                    f"{100 * now:.0f} % of the sampled captions {what}, {100 * before:.0f} % at the start: lower the "
                    "learning rate, or hold the model with --scst-kl or --scst-bleu-weight"
                )
                del self._shares[name]


def log_samples(logs: Sequence[dict[str, Any]]) -> bool:
    """Log what is known of the samples of the batches of an update; whether there are any.

    reward, baseline    means over samples: CIDEr-D 0 to 10, 100 times that in papers
    length              tokens per sample, with the end of sentence
    distinct            percent of an image's samples that differ from each other
    cut, repeats, bad_ends    percent without end of sentence, with two successive words twice, and that end in "a"
    entropy             bits per sample; kl: nats per sample
    sampling_s, reward_s      seconds per batch
    """

    def total(name: str) -> float:
        return sum(float(log.get(f"scst_{name}", 0)) for log in logs)

    samples, batches = total("samples"), total("batches")
    if not samples:
        return False
    metrics.log_scalar("loss", sum(float(log["loss"]) for log in logs) / samples, samples, round=4)
    for name in ("reward", "baseline"):
        metrics.log_scalar(name, total(name) / samples, samples, round=4)
    metrics.log_scalar("length", total("tokens") / samples, samples, round=2)
    for name in ("distinct", "cut", "repeats", "bad_ends"):
        metrics.log_scalar(name, 100 * total(name) / samples, samples, round=2)
    metrics.log_scalar("entropy", total("entropy") / samples / math.log(2), samples, round=2)
    if total("kl"):
        metrics.log_scalar("kl", total("kl") / samples, samples, round=4)
    for name in ("sampling_s", "reward_s"):
        metrics.log_scalar(name, total(name) / batches, batches, round=3)
    return True
