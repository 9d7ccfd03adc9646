"""The search against a plain one, over made-up probabilities that depend on a caption's whole history."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_runtime.errors import DataError
from xgpt_runtime.search import Hypothesis, SearchOptions, search

EOS, SYMBOLS = 2, 14
NEVER = (0, 1, 3)  # tokens that no caption has


def probabilities(image: int, history: Sequence[int]) -> np.ndarray:
    """Log-probabilities (V,) of what follows *history* in the caption of *image*: random, but always the same."""
    digest = hashlib.sha256(repr((image, *history)).encode()).digest()
    logits = np.random.default_rng(int.from_bytes(digest[:8], "little")).normal(size=SYMBOLS) * 1.5
    logits[EOS] += 0.6 * len(history) - 1.5  # or captions end at once, or hardly ever
    return (logits - np.log(np.exp(logits).sum())).astype(np.float32)


class Table:
    """A decoder that sees of a row's history only what the mask shows it of what all rows of its image were given."""

    def __init__(self, images: int) -> None:
        self.images = list(range(images))
        self.given: list[list[list[int]]] = [[] for _ in range(images)]  # by image, position, row

    def step(self, tokens, position, mask, count):
        images, rows = tokens.shape
        assert images == len(self.images) and mask.shape == (images, 1, rows, (position + 1) * rows)
        table = np.empty((images, rows, SYMBOLS), dtype=np.float32)
        for place, image in enumerate(self.images):
            self.given[place].append(tokens[place].tolist())
            flat = [token for of_position in self.given[place] for token in of_position]
            for row in range(rows):
                seen = np.flatnonzero(mask[place, 0, row])
                assert [at // rows for at in seen] == list(range(position + 1))  # one of each position
                table[place, row] = probabilities(image, [flat[at] for at in seen][1:])
        end = table[..., EOS].copy()
        table[..., list(NEVER)] = -np.inf
        ids = np.argsort(-table, axis=-1, kind="stable")[..., :count]
        return np.take_along_axis(table, ids, axis=-1), ids, end

    def keep(self, images):
        self.images = [self.images[image] for image in images]
        self.given = [self.given[image] for image in images]


def plain(image: int, options: SearchOptions, longest: int) -> list[Hypothesis]:
    """One image, one caption after the other, as fairseq's documentation describes its beam search."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    found: list[Hypothesis] = []
    for length in range(longest + 1):
        candidates = []
        for words, score in beams:
            table = probabilities(image, words).astype(float)
            table[list(NEVER)] = -math.inf
            if length < options.min_len:
                table[EOS] = -math.inf
            if length == longest:
                table[np.arange(SYMBOLS) != EOS] = -math.inf
            elif size := options.no_repeat_ngram_size:
                # the end of sentence at the start is part of a sequence, but is none by itself
                whole = words if size == 1 else [EOS, *words]
                for token in range(SYMBOLS):
                    last = [*whole, token][-size:]
                    if any(whole[at : at + size] == last for at in range(len(whole) - size + 1)):
                        table[token] = -math.inf
            candidates += [([*words, token], score + table[token]) for token in range(SYMBOLS)]
        best = sorted(candidates, key=lambda each: -each[1])[: 2 * options.beam]
        for words, score in best[: options.beam]:
            if words[-1] == EOS and score > -math.inf and (options.no_early_stop or len(found) < options.beam):
                found.append(Hypothesis(tuple(words[:-1]), score / len(words) ** options.lenpen))
        if len(found) == options.beam and not options.no_early_stop:  # else: never before the longest
            break
        beams = [(words, score) for words, score in best if words[-1] != EOS or score == -math.inf][: options.beam]
    return sorted(found, key=lambda each: -each.score)[: options.beam]


@examples(40, max_examples=80)
@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([-0.5, 0.0, 0.7, 1.0, 2.0]), st.integers(1, 9),
    st.integers(0, 4), st.integers(0, 3) | st.just("late"), st.integers(5, 12),
)  # fmt: skip
def test_a_plain_search_finds_the_same(
    images: int, beam: int, lenpen: float, most: int, least: int, rule: int | str, positions: int
) -> None:
    longest = min(most, positions - 1)
    options = SearchOptions(beam=beam, lenpen=lenpen, max_len_b=most, min_len=min(least, longest))
    late = rule == "late"
    options = replace(options, no_early_stop=late, no_repeat_ngram_size=0 if late else int(rule))
    found = search(Table(images), images, symbols=SYMBOLS, eos=EOS, max_positions=positions, options=options)
    for image, hypotheses in enumerate(found):
        expected = plain(image, options, longest)
        assert [each.tokens for each in hypotheses] == [each.tokens for each in expected]
        np.testing.assert_allclose([each.score for each in hypotheses], [e.score for e in expected], atol=1e-5)


def test_a_better_caption_is_found_without_early_stop() -> None:
    early = SearchOptions(beam=2, lenpen=2.0)
    limits = {"symbols": SYMBOLS, "eos": EOS, "max_positions": 30}
    before, after = (
        search(Table(6), 6, options=options, **limits) for options in (early, replace(early, no_early_stop=True))
    )
    better = [late[0].score - first[0].score for first, late in zip(before, after, strict=True)]
    assert min(better) >= 0 and max(better) > 0.05
    best = after[better.index(max(better))][0]
    assert len(best.tokens) > len(before[better.index(max(better))][0].tokens)


@pytest.mark.parametrize(("lenpen", "most"), [(1.0, 20), (0.0, 9), (-1.0, 8)])
def test_it_ends_when_nothing_better_can_come(lenpen: float, most: int) -> None:
    """Long before the limit, where longer captions are punished."""
    decoder = Table(4)
    options = SearchOptions(beam=2, lenpen=lenpen, no_early_stop=True)
    found = search(decoder, 4, symbols=SYMBOLS, eos=EOS, max_positions=25, options=options)
    assert max(map(len, decoder.given)) <= most and all(len(hypotheses) == 2 for hypotheses in found)


@pytest.mark.parametrize("late", [False, True])
def test_an_image_s_captions_do_not_depend_on_the_others(late: bool) -> None:
    options = SearchOptions(beam=3, no_early_stop=late)
    together = search(Table(6), 6, symbols=SYMBOLS, eos=EOS, max_positions=20, options=options)
    assert len({len(each[0].tokens) for each in together}) > 2  # they end at different steps
    for image in range(6):
        alone = Table(1)
        alone.images = [image]
        assert search(alone, 1, symbols=SYMBOLS, eos=EOS, max_positions=20, options=options) == [together[image]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SearchOptions(beam=0), "the beam size is 0; with 14 symbols, 1 to 6 are allowed"),
        (SearchOptions(beam=7), "the beam size is 7"),
        (SearchOptions(min_len=9, max_len_b=8), "captions of at least 9 tokens, but at most 8"),
        (SearchOptions(min_len=20), "captions of at least 20 tokens, but at most 19"),
    ],
)
def test_impossible_searches_are_refused(options: SearchOptions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        search(Table(1), 1, symbols=SYMBOLS, eos=EOS, max_positions=20, options=options)


def test_blocked_repeats_are_not_searched_without_early_stop() -> None:
    """As in xgpt_fairseq."""
    with pytest.raises(DataError, match="--no-early-stop is for plain beam search: leave out --no-repeat-ngram-size"):
        SearchOptions(no_early_stop=True, no_repeat_ngram_size=3)
