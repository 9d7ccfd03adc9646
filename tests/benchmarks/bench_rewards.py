"""Rewards of CIDEr optimisation with the references of COCO's training split against those with few, on one thread."""

from __future__ import annotations

import numpy as np

from tests.benchmarks import measuring
from tests.benchmarks.measuring import Line, by_turns, middle
from xgpt_fairseq.metrics.ngrams import NgramScorer

IMAGES, FEW, REFERENCES = 113_287, 1_000, 5  # COCO's, by Karpathy
BATCH, CAPTIONS, WORDS = 64, 5, 11.5  # of an update; of a caption, its end included
UPDATES = 10


def measure(rounds: int) -> list[Line]:
    random = np.random.default_rng(0)
    began = measuring.clock()
    many = scorer(random, IMAGES)
    built = measuring.clock() - began
    few = scorer(random, FEW)
    words, lengths = captions(random, BATCH * CAPTIONS)
    times = by_turns(
        lambda: seconds(many, words, lengths, np.repeat(random.choice(IMAGES, BATCH), CAPTIONS)),
        lambda: seconds(few, words, lengths, np.repeat(random.choice(FEW, BATCH), CAPTIONS)),
        rounds=rounds,
    )
    ours, theirs = (1000 * middle([round_[i] for round_ in times]) for i in (0, 1))
    return [
        Line(
            f"rewards of {BATCH * CAPTIONS} captions, references of {IMAGES} images",
            f"references of {FEW} images",
            "at most 1.5",
            [large / small for large, small in times],
            f"{ours:.1f} against {theirs:.1f} ms; at the start, once, {built:.0f} s",
        )
    ]


def captions(random: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Word ids and lengths; few words are frequent."""
    lengths = np.maximum(random.poisson(WORDS, number), 1)
    return (random.zipf(1.3, lengths.sum()) % 20_000).astype(np.uint64), lengths


def scorer(random: np.random.Generator, images: int) -> NgramScorer:
    return NgramScorer(*captions(random, images * REFERENCES), np.repeat(np.arange(images), REFERENCES))


def seconds(of: NgramScorer, words: np.ndarray, lengths: np.ndarray, images: np.ndarray) -> float:
    """Of an update, the mean of some."""
    return measuring.seconds(lambda: [of.score(words, lengths, images) for _ in range(UPDATES)]) / UPDATES
