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
    if getattr(args, "match_source_len", False):
        raise DataError("--match-source-len would give a caption as many tokens as its image has regions: leave it out")
    if getattr(args, "constraints", None):
        others = [name for name, given in _other_searches(args).items() if given]
        if others:
            raise DataError(f"--constraints is a search of its own: leave {' and '.join(others)} out")
    if getattr(args, "retain_dropout", False) or getattr(args, "retain_dropout_modules", None):
        raise DataError("--retain-dropout has no effect: captions are searched without dropout; leave it out")
    if getattr(args, "retain_iter_history", False):
        raise DataError("--retain-iter-history is for models that refine a sentence in steps, and this one does not")
    if getattr(args, "no_early_stop", False) and getattr(args, "prefix_size", 0):
        raise DataError("--no-early-stop is for plain beam search: leave --prefix-size out")
    if getattr(args, "print_step", False):
        raise DataError("--print-step is for models that refine a sentence in steps, and this one does not")
    if getattr(args, "print_alignment", None):
        raise DataError("--print-alignment: captions have no source words to be aligned with")


def _other_searches(args: Any) -> dict[str, bool]:
    """The options by which fairseq takes another search than that of --constraints, and whether they are given."""
    return {
        "--sampling": getattr(args, "sampling", False),
        "--diverse-beam-groups": getattr(args, "diverse_beam_groups", -1) > 0,
        "--diversity-rate": getattr(args, "diversity_rate", -1) > -1,
    }
