"""Our beam search against fairseq's, hypothesis by hypothesis; and that the host waits only when it looks."""

from __future__ import annotations

import math
from functools import cache
from itertools import chain
from typing import Any

import pytest
import torch
from fairseq.search import DiverseBeamSearch, Sampling
from fairseq.sequence_generator import SequenceGenerator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.models.small import build, images
from tests.waits import Waits
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.kernels import switch
from xgpt_fairseq.models.xgpt import SHARING_LAYERS, XGPTModel
from xgpt_fairseq.search import beam_search
from xgpt_fairseq.search.beam_search import CaptionGenerator
from xgpt_fairseq.search.hypotheses import Trace

EOS = 2


@cache
def model_of(sharing: str, words: int = 20, seed: int = 0) -> XGPTModel:
    return build(seed=seed, sharing=sharing, words=words)


def found_by(generator: SequenceGenerator, batch: dict[str, torch.Tensor]) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = generator.generate([], {"net_input": batch})
    return found


def assert_same(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> None:
    """The same hypotheses in the same order, with the same scores of captions and of words."""
    assert [len(each) for each in found] == [len(each) for each in expected]
    for ours, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert ours["tokens"].tolist() == theirs["tokens"].tolist()
        for name in ("score", "positional_scores"):
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=0)
        assert ours.keys() == theirs.keys()
        assert [ours[name].dtype for name in ours] == [theirs[name].dtype for name in theirs]


SEARCHES = st.fixed_dictionaries(
    {
        "beam_size": st.sampled_from([1, 2, 5]),
        "max_len_a": st.sampled_from([0, 0.5]),  # tokens a region, beside max_len_b
        "max_len_b": st.integers(3, 30),  # the model's own limit is 23
        "min_len": st.integers(0, 3),
        "len_penalty": st.sampled_from([0.0, 0.4, 1.0, 2.0, -0.5]),
        "temperature": st.sampled_from([1.0, 0.7]),
        "normalize_scores": st.booleans(),
    }
)


@given(
    sharing=st.sampled_from(list(SHARING_LAYERS)),
    words=st.sampled_from([15, 60]),
    counts=st.one_of(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.lists(st.integers(1, 9), min_size=12)),
    options=SEARCHES,
    fond_of_ends=st.floats(0, 6),
    steps_unseen=st.sampled_from([None, 1, 3, 50]),
    seed=st.integers(0, 3),
)
@example(  # no caption ends by itself: all are as long as they may be
    sharing="enc-dec-share", words=15, counts=[9, 2], options={"beam_size": 2, "max_len_a": 0.5, "max_len_b": 3},
    fond_of_ends=-9.0, steps_unseen=None, seed=0,
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_hypotheses_and_scores_are_fairseq_s(
    sharing: str,
    words: int,
    counts: list[int],
    options: dict[str, Any],
    fond_of_ends: float,
    steps_unseen: int | None,
    seed: int,
) -> None:
    model, batch = model_of(sharing, words, seed), images(counts, seed=seed)
    with torch.no_grad():  # so that captions of a batch end at different steps
        model.decoder.output.bias[EOS] = fond_of_ends
    dictionary = model.decoder.dictionary
    ours = CaptionGenerator([model], dictionary, steps_unseen=steps_unseen, tokens_to_suppress=["w3"], **options)
    assert ours.is_plain
    theirs = SequenceGenerator([model], dictionary, tokens_to_suppress=["w3"], **options)
    told = {**batch, "padded": bool(batch["padding_mask"].any())}
    assert_same(found_by(ours, told), found_by(theirs, batch))


@pytest.mark.parametrize("beam", [1, 3])
def test_models_that_decide_together(beam: int) -> None:
    models = [model_of("enc-dec-share"), model_of("enc", seed=1), model_of("enc-dec", seed=2)]
    batch, options = images([4, 1, 7]), {"beam_size": beam, "max_len_b": 12}
    dictionary = models[0].decoder.dictionary
    expected = found_by(SequenceGenerator(models, dictionary, **options), batch)
    assert_same(found_by(CaptionGenerator(models, dictionary, **options), batch), expected)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_in_bfloat16_the_score_is_the_model_s(sharing: str) -> None:
    """Rounding decides between words: the search is not compared, but its scores, with one pass over the text."""
    model, batch = model_of(sharing), images([4, 1, 7])
    generator = CaptionGenerator([model], model.decoder.dictionary, beam_size=3, max_len_b=12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = found_by(generator, batch)
    encoder_out = model.encoder(**batch)
    for image, hypotheses in enumerate(found):
        tokens = hypotheses[0]["tokens"]
        shifted = torch.cat([tokens.new_tensor([EOS]), tokens[:-1]]).expand(3, -1)
        logits, _ = model.decoder(shifted, encoder_out)
        scores = logits[image].float().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
        torch.testing.assert_close(hypotheses[0]["positional_scores"], scores.detach(), atol=0.15, rtol=0.05)


@pytest.mark.parametrize(("sharing", "beam"), [("enc-dec-share", 1), ("enc-dec-share", 2), ("enc", 2)])
def test_the_host_waits_only_when_it_looks(monkeypatch: pytest.MonkeyPatch, beam: int, sharing: str) -> None:
    """On the device `meta`, whose tensors have shapes and no values, as if a GPU never came to computing them."""
    looks = []

    class NotDone:
        def tolist(self) -> list[bool]:
            looks.append(1)
            return [False] * 3

    monkeypatch.setattr(beam_search.Progress, "done", property(lambda self: NotDone()))
    monkeypatch.setattr(Trace, "hypotheses", lambda self, *rest: self._steps)
    model = build(sharing=sharing, layers=1).to("meta")
    generator = CaptionGenerator([model], model.decoder.dictionary, beam_size=beam, max_len_b=9, steps_unseen=4)
    batch = {name: tensor.to("meta") for name, tensor in images([4, 9, 2]).items()}
    assert (len(found_by(generator, batch)), len(looks)) == (10, 2)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize(("beam", "no_early_stop"), [(1, False), (2, False), (2, True)])
def test_no_operator_waits(beam: int, no_early_stop: bool, sharing: str) -> None:
    """The same with values: of the operators that wait, there are none between looks; looking reads memory here."""
    model = model_of(sharing)
    generator = CaptionGenerator(
        [model], model.decoder.dictionary, beam_size=beam, max_len_b=9, no_early_stop=no_early_stop
    )
    with Waits() as waits:
        found_by(generator, images([4, 9, 2]))
    assert waits.seen == []


def test_that_waits_are_noticed() -> None:
    """fairseq's search waits in each step, as the two checks above have to see."""
    model, batch = model_of("enc-dec-share"), images([4, 9, 2])
    stock = SequenceGenerator([model], model.decoder.dictionary, beam_size=2, max_len_b=9)
    with Waits() as waits:
        found_by(stock, batch)
    assert len(waits.seen) >= 9
    model = build(layers=1).to("meta")
    stock = SequenceGenerator([model], model.decoder.dictionary, beam_size=2, max_len_b=9)
    with pytest.raises((NotImplementedError, RuntimeError)):
        found_by(stock, {name: tensor.to("meta") for name, tensor in batch.items()})


@pytest.mark.parametrize("steps_unseen", [None, 4])
def test_images_that_are_done_cost_nothing_from_the_next_look_on(
    monkeypatch: pytest.MonkeyPatch, steps_unseen: int | None
) -> None:
    model, batch = build(), images([4, 9, 2, 3])
    rows = []
    next_words = type(model.decoder).next_words

    def counted(self: Any, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(tokens))
        return next_words(self, tokens, *rest)

    monkeypatch.setattr(type(model.decoder), "next_words", counted)
    with torch.no_grad():
        model.decoder.output.bias[EOS] = 4.0
    generator = CaptionGenerator(
        [model], model.decoder.dictionary, beam_size=2, max_len_b=20, steps_unseen=steps_unseen
    )
    ends = [max(len(each["tokens"]) for each in hypotheses) for hypotheses in found_by(generator, batch)]
    look = steps_unseen or 1
    steps = [min(-(-end // look) * look, 21) for end in ends]  # those that an image takes part in
    assert rows == [sum(each > step for each in steps) for step in range(max(steps))]
    assert len(set(rows)) > 1


OTHERS: dict[str, Any] = {
    "sampling": lambda words: {"search_strategy": Sampling(words)},
    "diverse beams": lambda words: {"search_strategy": DiverseBeamSearch(words, 2, 0.5)},
    "blocked repetitions": lambda words: {"no_repeat_ngram_size": 2},
    "as long as the source": lambda words: {"match_source_len": True},
    "unknown words": lambda words: {"unk_penalty": 1.0},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_other_searches_are_fairseq_s(options: Any) -> None:
    model, batch = model_of("enc-dec-share"), images([4, 1, 7])
    dictionary = model.decoder.dictionary
    options = {"beam_size": 4, "max_len_b": 9, **options(dictionary)}
    ours, theirs = (kind([model], dictionary, **options) for kind in (CaptionGenerator, SequenceGenerator))
    assert not ours.is_plain
    found = []
    for generator in (ours, theirs):
        torch.manual_seed(1)
        found.append(found_by(generator, batch))
    assert_same(*found)
    with pytest.raises(DataError, match="--no-early-stop is for plain beam search: leave out sampling"):
        CaptionGenerator([model], dictionary, no_early_stop=True, **options)


def test_prefixes_and_plain_kernels_are_fairseq_s(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("enc-dec-share"), images([4, 1])
    generator, early = (
        CaptionGenerator([model], model.decoder.dictionary, max_len_b=5, no_early_stop=late) for late in (True, False)
    )
    prefix = {"prefix_tokens": torch.tensor([[7, 8], [9, 10]])}
    with pytest.raises(DataError, match="leave --prefix-size and --constraints out"):
        generator.generate([], {"net_input": batch}, **prefix)
    monkeypatch.setattr(beam_search, "search", pytest.fail)
    found = early.generate([], {"net_input": batch}, **prefix)
    assert [hypotheses[0]["tokens"][:2].tolist() for hypotheses in found] == [[7, 8], [9, 10]]
    with switch.plain():
        assert len(found_by(early, batch)) == 2
        with pytest.raises(DataError, match=r"leave out .* XGPT_KERNELS=plain"):
            found_by(generator, batch)


def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    model = build()
    with torch.no_grad():
        model.decoder.output.bias[5] = math.nan
    with pytest.raises(DataError, match=r"the model's probabilities are not numbers \(NaN\)"):
        found_by(CaptionGenerator([model], model.decoder.dictionary, max_len_b=5), images([4]))
