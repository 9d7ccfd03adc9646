"""--no-early-stop against a beam search that is written down plainly, and never stops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.small import build, images, one
from xgpt_fairseq.models.xgpt import SHARING_LAYERS, XGPTModel
from xgpt_fairseq.search.beam_search import CaptionGenerator

PAD, EOS, UNK = 1, 2, 3


def plain_search(
    model: XGPTModel, image: dict[str, torch.Tensor], *, beam: int, longest: int, shortest: int, lenpen: float
) -> list[tuple[float, list[int]]]:
    """The best hypotheses of one image: scores, and tokens with the end of sentence."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    for step in range(longest + 1):
        candidates = []
        for total, words in beams:
            tokens = torch.tensor([[EOS, *words]])
            logits, _ = model.predict_words(prev_output_tokens=tokens, **image)
            for word, score in enumerate(logits[0, -1].double().log_softmax(-1).tolist()):
                barred = word in (PAD, UNK) or (word == EOS and step < shortest) or (word != EOS and step == longest)
                if not barred:
                    candidates.append((total + score, [*words, word]))
        candidates.sort(key=lambda each: -each[0])
        for total, words in candidates[:beam]:
            if words[-1] == EOS:
                ended.append((total / len(words) ** lenpen, words))
        beams = [each for each in candidates if each[1][-1] != EOS][:beam]
    return sorted(ended, key=lambda each: -each[0])[:beam]


def search(model: XGPTModel, batch: dict[str, torch.Tensor], **options: Any) -> list[list[tuple[float, list[int]]]]:
    generator = CaptionGenerator([model], model.decoder.dictionary, tokens_to_suppress=[], **options)
    generator.token_indices_to_suppress = torch.tensor([UNK])
    found = generator.generate([], {"net_input": batch})
    return [[(float(each["score"]), each["tokens"].tolist()) for each in hypotheses] for hypotheses in found]


@given(
    sharing=st.sampled_from(list(SHARING_LAYERS)),
    beam=st.sampled_from([1, 2, 5]),
    longest=st.integers(2, 6),
    shortest=st.integers(0, 2),
    lenpen=st.sampled_from([0.0, 0.5, 1.0, 2.0, -0.5]),
    fond_of_ends=st.floats(0, 6),
    steps_unseen=st.sampled_from([1, 3]),
    seed=st.integers(0, 3),
)
@settings(max_examples=8, deadline=None)
def test_it_finds_what_a_search_finds_that_never_stops(
    sharing: str,
    beam: int,
    longest: int,
    shortest: int,
    lenpen: float,
    fond_of_ends: float,
    steps_unseen: int,
    seed: int,
) -> None:
    model, batch = build(seed=seed, sharing=sharing), images([4, 1, 7], seed=seed)
    with torch.no_grad():
        model.decoder.output.bias[EOS] = fond_of_ends
    limits = {"beam_size": beam, "max_len_b": longest, "min_len": shortest, "len_penalty": lenpen}
    late = search(model, batch, no_early_stop=True, steps_unseen=steps_unseen, **limits)
    early = search(model, batch, **limits)
    for image, (found, before) in enumerate(zip(late, early, strict=True)):
        with torch.no_grad():
            expected = plain_search(
                model, one(batch, image), beam=beam, longest=longest, shortest=shortest, lenpen=lenpen
            )
        assert [words for _, words in found] == [words for _, words in expected]
        assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert found[0][0] >= before[0][0] - 1e-5


def test_a_better_hypothesis_is_found() -> None:
    """One that was not finished when there were as many hypotheses as beams."""
    model, batch = build(seed=0), images([4, 1, 7, 2])
    with torch.no_grad():
        model.decoder.output.bias[EOS] = 4.0
    early, late = (
        [hypotheses[0] for hypotheses in search(model, batch, beam_size=2, max_len_b=20, no_early_stop=late)]
        for late in (False, True)
    )
    better = [after[0] - before[0] for before, after in zip(early, late, strict=True)]
    assert max(better) > 0.1 and min(better) > -1e-5
    assert len(late[better.index(max(better))][1]) > len(early[better.index(max(better))][1])


@pytest.mark.parametrize(("lenpen", "most"), [(1.0, 20), (0.0, 8), (-1.0, 4)])
def test_it_ends_when_nothing_better_can_come(monkeypatch: pytest.MonkeyPatch, lenpen: float, most: int) -> None:
    """Long before the limit, where longer captions are punished."""
    model, batch = build(seed=1), images([4, 1, 7, 2])
    with torch.no_grad():
        model.decoder.output.bias[EOS] = 4.0
    steps = []
    next_words = type(model.decoder).next_words
    monkeypatch.setattr(
        type(model.decoder), "next_words", lambda self, *rest: steps.append(1) or next_words(self, *rest)
    )
    found = search(model, batch, beam_size=2, max_len_b=22, len_penalty=lenpen, no_early_stop=True)
    assert len(steps) <= most and all(math.isfinite(score) for hypotheses in found for score, _ in hypotheses)
