"""Search for captions: fairseq's generator with our beam search, configured for captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairseq.search import DiverseBeamSearch, Sampling
from fairseq.sequence_generator import SequenceGenerator

from xgpt_fairseq.errors import DataError, check_at_least, check_between
from xgpt_fairseq.precision import check_cpu_bfloat16
from xgpt_fairseq.search.beam_search import CaptionGenerator
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.workarounds import RepeatBlock, never_unknown

LENPEN = 10  # beyond, powers of a caption's length are no numbers of 32 bits


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search, with fairseq's names. Beam 2 is the paper's (section 5.3)."""

    beam: int = 2
    lenpen: float = 1.0
    max_len_b: int = 200
    min_len: int = 1
    no_repeat_ngram_size: int = 0
    sampling: bool = False
    sampling_topp: float = -1.0
    temperature: float = 1.0
    diverse_beam_groups: int = -1
    diverse_beam_strength: float = 0.5
    no_early_stop: bool = False
    cpu_bf16: bool = False


def build_generator(models: Sequence[Any], vocabulary: Vocabulary, options: SearchOptions) -> CaptionGenerator:
    """Build the generator for *models* with *options*.

    Raises:
        DataError: a number is too small or too large, options exclude each other, or bfloat16 is requested on a CPU
            without bfloat16 arithmetic.
    """
    check_at_least("beam", options.beam, 1)
    symbols = len(vocabulary.dictionary)
    if not options.sampling and 2 * options.beam >= symbols:  # a step of the search looks at 2B words
        most = (symbols - 1) // 2
        raise DataError(f"the beam size is {options.beam}; with {symbols} symbols, 1 to {most} are allowed")
    check_at_least("max_len_b", options.max_len_b, 1)
    check_between("lenpen", options.lenpen, -LENPEN, LENPEN)
    if options.cpu_bf16:
        check_cpu_bfloat16()
    strategy = None
    if options.sampling:
        strategy = Sampling(vocabulary.dictionary, sampling_topp=options.sampling_topp)
    elif options.diverse_beam_groups > 0:
        strategy = DiverseBeamSearch(vocabulary.dictionary, options.diverse_beam_groups, options.diverse_beam_strength)
    generator = CaptionGenerator(
        list(models),
        vocabulary.dictionary,
        beam_size=options.beam,
        len_penalty=options.lenpen,
        max_len_b=options.max_len_b,
        min_len=options.min_len,
        temperature=options.temperature,
        search_strategy=strategy,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        no_early_stop=options.no_early_stop,
        **vocabulary_arguments(vocabulary),
    )
    adapt(generator)
    return generator


def vocabulary_arguments(vocabulary: Vocabulary) -> dict[str, Any]:
    """Arguments of fairseq's generators, which suppress non-words (`<mask>`, `<s>`, dictionary padding)."""
    return {"tokens_to_suppress": vocabulary.suppressed_symbols}


def adapt(generator: SequenceGenerator) -> None:
    """Keep *generator* from emitting `<unk>`, and fix its blocking of repeats: see `workarounds`."""
    never_unknown(generator)
    if generator.repeat_ngram_blocker is not None:
        generator.repeat_ngram_blocker = RepeatBlock(generator.repeat_ngram_blocker.no_repeat_ngram_size)
