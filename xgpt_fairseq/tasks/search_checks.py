"""What the captioning task checks of a search before it begins: options that fairseq would find wrong at a batch."""

from __future__ import annotations

from typing import Any

from xgpt_fairseq.errors import DataError, check_at_least


def check_search(args: Any, *, max_positions: int) -> None:
    """Check the options of a search, which fairseq would find wrong at its first batch.

    Args:
        args: the options, fairseq's group `generation`; those that are not given have fairseq's defaults.
        max_positions: the longest text of the model in tokens, end of sentence included.

    Raises:
        DataError: an option has an impossible value, or has no effect on captions.
    """
    beam, nbest = getattr(args, "beam", 5), getattr(args, "nbest", 1)
    check_at_least("--beam", beam, 1)
    check_at_least("--nbest", nbest, 1)
    check_at_least("--no-repeat-ngram-size", getattr(args, "no_repeat_ngram_size", 0), 0, "0: off")
    if nbest > beam:
        raise DataError(f"--nbest {nbest} needs as many hypotheses: pass --beam {nbest} or more, not {beam}")
    groups = getattr(args, "diverse_beam_groups", -1)
    if groups > 0 and beam % groups:
        raise DataError(f"--beam {beam} cannot be divided into --diverse-beam-groups {groups} groups of equal size")
    longest = max_positions - 1
    if not getattr(args, "max_len_a", 0):
        longest = min(longest, getattr(args, "max_len_b", 200))
    shortest = getattr(args, "min_len", 1)
    if shortest > longest:
        raise DataError(
            f"--min-len {shortest} is more than the longest caption, of {longest} tokens (the smaller of --max-len-b "
            f"and the model's {max_positions - 1})"
        )
    if getattr(args, "no_early_stop", False) and getattr(args, "prefix_size", 0):
        raise DataError("--no-early-stop is for plain beam search: leave --prefix-size out")
    if getattr(args, "print_step", False):
        raise DataError("--print-step is for models that refine a sentence in steps, and this one does not")
    if getattr(args, "print_alignment", None):
        raise DataError("--print-alignment: captions have no source words to be aligned with")
