"""Lines held out for validation: which they are, and that training gets all others."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.text.validation_lines import HeldOut, Sentences

# A line is what its sentences are. Lines here come from a small stock, so that many are copies of each other; two of
# them share a hash and are not the same.
Line = tuple[tuple[int, ...], ...]
STOCK: list[tuple[Line, int]] = [
    (((number, 2),) if number % 3 else ((number, 9, 2), (number, 2)), (7919 * number) % 64 << 40)
    for number in range(40)
]
STOCK.append((((5, 5, 2),), STOCK[5][1]))
HASHES = dict(STOCK)


def process(held_out: HeldOut, block: list[Line]) -> list[Line | tuple[int, ...]]:
    """What goes to training of *block*, as sentences."""
    parts = held_out.process(
        np.array([token for line in block for sentence in line for token in sentence], dtype=np.uint16),
        np.array([len(sentence) for line in block for sentence in line], dtype=np.int32),
        np.array([len(line) for line in block], dtype=np.int32),
        np.array([HASHES[line] for line in block], dtype=np.uint64),
    )
    return [sentence for part in parts for sentence in unpacked(part)]


def unpacked(part: Sentences) -> list[tuple[int, ...]]:
    tokens, sizes = part
    assert tokens.dtype == np.uint16
    assert len(tokens) == sizes.sum()
    return [tuple(piece.tolist()) for piece in np.split(tokens, np.cumsum(sizes))[:-1]]


def lowest(lines: list[Line], limit: int) -> list[Line]:
    """The plain rule: of the different lines, those with the lowest hashes; equal ones by their tokens."""

    def key(line: Line) -> tuple[int, bytes]:
        return HASHES[line], np.array([t for sentence in line for t in sentence], dtype=np.uint16).tobytes()

    return sorted(set(lines), key=key)[:limit]


corpora = st.lists(st.sampled_from([line for line, _ in STOCK]), max_size=60)


@given(corpora, st.integers(0, 12), st.integers(1, 20))
def test_the_lowest_are_held_out_and_all_others_train(lines: list[Line], limit: int, block: int) -> None:
    held_out = HeldOut(limit, np.uint16)
    trained: list = []
    for begin in range(0, len(lines), block):
        trained += process(held_out, lines[begin : begin + block])
    expected = lowest(lines, limit)
    assert unpacked(held_out.sentences()) == [sentence for line in expected for sentence in line]
    assert len(held_out) == len(expected)
    assert held_out.copies == sum(line in expected for line in lines)
    rest = Counter(sentence for line in lines if line not in expected for sentence in line)
    assert Counter(trained) == rest


@given(corpora, st.integers(0, 6), st.lists(st.integers(0, 60), max_size=5))
def test_the_order_does_not_depend_on_the_blocks(lines: list[Line], limit: int, cuts: list[int]) -> None:
    whole, parts = HeldOut(limit, np.uint16), HeldOut(limit, np.uint16)
    expected = process(whole, lines)
    trained: list = []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        trained += process(parts, lines[begin:end])
        # and a run that is interrupted here goes on as if it had not been
        parts = HeldOut(limit, np.uint16, json.loads(json.dumps(parts.to_json())))
    assert trained == expected
    assert unpacked(parts.sentences()) == unpacked(whole.sentences())
    assert parts.copies == whole.copies


@pytest.mark.parametrize("limit", [1, 3])
def test_a_line_that_came_often_goes_to_training_as_often(limit: int) -> None:
    by_hash = sorted((line for line, _ in STOCK[:30]), key=HASHES.__getitem__)
    high, low = by_hash[-limit:], by_hash[:limit]
    held_out = HeldOut(limit, np.uint16)
    assert process(held_out, high * 4) == []
    assert held_out.copies == 4 * limit
    trained = Counter(process(held_out, low))
    assert trained == Counter(sentence for line in high * 4 for sentence in line)
    assert unpacked(held_out.sentences()) == [sentence for line in low for sentence in line]
