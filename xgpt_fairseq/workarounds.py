"""What fairseq 0.12 gets wrong where we need it, worked around without touching fairseq.

Everything of this kind is here. `tests/test_workarounds.py` shows each fault on stock fairseq, and so fails when a
release no longer needs the workaround.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.search import DiverseBeamSearch
from omegaconf import OmegaConf, open_dict
from torch import Tensor


def with_last_batch(batches: list[Any], indices: np.ndarray) -> list[Any]:
    """fairseq's *batches* of *indices*, with the last one that fairseq drops.

    `batch_by_size` leaves the last batch out where its size is no multiple of --required-batch-size-multiple, which
    is 8 by default: up to 7 items of every epoch and of every test set are never seen
    (facebookresearch/fairseq#5036).
    """
    dropped = indices[sum(len(batch) for batch in batches) :]
    return [*batches, dropped] if len(dropped) else list(batches)


class RepeatBlock(NGramRepeatBlock):
    """--no-repeat-ngram-size without the CUDA extension.

    fairseq compares the end of the whole token buffer, which is padding until the search is over, so that it never
    blocks anything; what has been generated so far is the buffer's beginning. With n = 1 it blocks nothing either,
    since its slice of the last n - 1 tokens is all of them then.
    """

    def _no_repeat_ngram(self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        if self.no_repeat_ngram_size == 1:
            # not the first position, the end-of-sentence symbol that every search begins with
            return lprobs.scatter_(1, tokens[:, 1 : step + 1], -math.inf)
        return super()._no_repeat_ngram(tokens[:, : step + 1], lprobs, bsz, beam_size, step)


def sample_for_search(sample: dict[str, Any], generator: Any) -> dict[str, Any]:
    """The batch as *generator* can use it.

    Diverse beam search keeps a table with a row a sentence of the batch but looks rows up by the sentences' ids in
    the data set; without ids the generator counts within the batch.
    """
    if isinstance(getattr(generator, "search", None), DiverseBeamSearch):
        return {key: value for key, value in sample.items() if key != "id"}
    return sample


def load_checkpoints_on_all_ranks(task_cfg: Any) -> None:
    """Let every process read checkpoints itself: --load-checkpoint-on-all-dp-ranks.

    By default rank 0 reads and broadcasts, by torch.save and torch.load, a state whose configuration is a DictConfig by
    then, which torch's `weights_only=True` refuses: no run of several processes could resume. The option is another
    group's than the task's, so it is set in the configuration that the task's is a part of.
    """
    root = task_cfg._get_root() if OmegaConf.is_config(task_cfg) else None
    if root is not None and "checkpoint" in root:
        with open_dict(root):
            root.checkpoint.load_checkpoint_on_all_dp_ranks = True
