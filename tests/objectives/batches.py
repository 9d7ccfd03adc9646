"""Batches of the objectives, as the collater makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xgpt_fairseq.data.objective_dataset import pad_right
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols

SYMBOLS = Symbols(pad=1, eos=2, mask=23, words=(4, 23))
CAPTIONS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18]]


def objective_of(name: str, **options: Any):
    return PRETRAINING_OBJECTIVES[name](SYMBOLS, **options)


def sample_of(objective, batch: dict[str, torch.Tensor], captions=CAPTIONS, image_index=None, seed: int = 0):
    """A batch as the collater makes it, and the corrupted captions."""
    examples = [objective.make_example(np.array(c), np.random.default_rng([seed, i])) for i, c in enumerate(captions)]
    arrays = {
        key: pad_right([e[key] for e in examples], 0 if key == "positions" else SYMBOLS.pad) for key in examples[0]
    }
    target = arrays.pop("target", None)
    sample = {
        "net_input": {**({**batch, "image_index": image_index} if objective.uses_regions else {}), **arrays},
        "target": target,
        "target_index": None if target is None else (target.view(-1) != SYMBOLS.pad).nonzero().squeeze(1),
        "nsentences": len(captions),
    }
    return sample, examples
