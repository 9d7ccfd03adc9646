"""What a search is built with, for fairseq's generator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fairseq.dataclass.configs import GenerationConfig

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.loading import build_model
from xgpt_fairseq.models.xgpt import XGPTConfig
from xgpt_fairseq.search.beam_search import CaptionGenerator
from xgpt_fairseq.search.generator import SearchOptions, build_generator
from xgpt_fairseq.text.vocabulary import Vocabulary
from xgpt_fairseq.workarounds import RepeatBlock

SIZES = {"layers": 1, "hidden_size": 16, "ffn_size": 16, "attention_heads": 2, "feature_dim": 8}


def test_every_option_reaches_fairseq(tiny_vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary(tiny_vocabulary)
    model = build_model(XGPTConfig(**SIZES), vocabulary)
    given: dict[str, Any] = {}

    class Recorder(CaptionGenerator):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            given.update(options)
            super().__init__(*arguments, **options)

    def search(**options: Any) -> CaptionGenerator:
        return build_generator([model], vocabulary, SearchOptions(**options))

    monkeypatch.setattr("xgpt_fairseq.search.generator.CaptionGenerator", Recorder)
    made = search(beam=4, lenpen=0.3, max_len_b=17, min_len=3, no_repeat_ngram_size=2, temperature=0.7)
    expected = {"beam_size": 4, "len_penalty": 0.3, "max_len_b": 17, "min_len": 3, "no_repeat_ngram_size": 2}
    assert given.items() >= {**expected, "temperature": 0.7}.items()
    assert isinstance(made.repeat_ngram_blocker, RepeatBlock) and made.repeat_ngram_blocker.no_repeat_ngram_size == 2
    assert given["search_strategy"] is None
    assert given["no_early_stop"] is False and search(no_early_stop=True).no_early_stop
    search(beam=4, diverse_beam_groups=0)
    assert given["search_strategy"] is None
    search(sampling=True, sampling_topp=0.8)
    assert given["search_strategy"].sampling_topp == 0.8
    search(beam=4, diverse_beam_groups=1)
    assert given["search_strategy"].num_groups == 1
    search(beam=4, diverse_beam_groups=2, diverse_beam_strength=0.9)
    assert (given["search_strategy"].num_groups, given["search_strategy"].diversity_strength) == (2, -0.9)


def test_a_beam_is_less_than_half_of_the_vocabulary(tiny_vocabulary: Path) -> None:
    vocabulary = Vocabulary(tiny_vocabulary)
    model, symbols = build_model(XGPTConfig(**SIZES), vocabulary), len(vocabulary.dictionary)
    most = (symbols - 1) // 2
    build_generator([model], vocabulary, SearchOptions(beam=most))
    build_generator([model], vocabulary, SearchOptions(beam=most + 1, sampling=True))
    with pytest.raises(DataError, match=f"is {most + 1}; with {symbols} symbols, 1 to {most} are allowed"):
        build_generator([model], vocabulary, SearchOptions(beam=most + 1))


@pytest.mark.parametrize("lenpen", [float("nan"), float("inf"), 10.5])
def test_length_penalties_that_lead_to_no_numbers_are_refused(tiny_vocabulary: Path, lenpen: float) -> None:
    vocabulary = Vocabulary(tiny_vocabulary)
    model = build_model(XGPTConfig(**SIZES), vocabulary)
    with pytest.raises(DataError, match=f"lenpen must be -10 to 10, got {lenpen}"):
        build_generator([model], vocabulary, SearchOptions(lenpen=lenpen))


def test_the_defaults_are_fairseq_s_but_for_the_paper_s_beam() -> None:
    theirs, ours = vars(GenerationConfig()), asdict(SearchOptions())
    assert ours == {**{name: theirs[name] for name in ours if name != "cpu_bf16"}, "beam": 2, "cpu_bf16": False}


def test_what_is_no_word_is_never_generated(tiny_vocabulary: Path) -> None:
    vocabulary = Vocabulary(tiny_vocabulary)
    generator = build_generator([build_model(XGPTConfig(**SIZES), vocabulary)], vocabulary, SearchOptions())
    suppressed = set(generator.token_indices_to_suppress.tolist())
    assert suppressed == {vocabulary.dictionary.index(symbol) for symbol in vocabulary.suppressed_symbols} | {
        vocabulary.dictionary.unk()
    }
