"""The order of batches: what every rank trains on, update by update."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from fairseq.data.iterators import GroupedIterator, ShardedIterator
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.data.schedule import IndexCodec, batches_of_update, group_into_updates, interleave_objectives


def batches_of(sizes: list[int]) -> list[np.ndarray]:
    numbers = np.arange(sum(sizes))
    return np.split(numbers, np.cumsum(sizes)[:-1])


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=25)


@given(st.integers(1, 50), st.integers(1, 5), st.data())
def test_the_index_code_comes_back(items, objectives, data):
    code = IndexCodec(items=items, objectives=objectives)
    epoch = data.draw(st.integers(0, 10_000))
    objective, item = data.draw(st.integers(0, objectives - 1)), data.draw(st.integers(0, items - 1))
    (packed,) = code.pack(epoch, objective, np.array([item]))
    assert code.unpack(packed) == (epoch, objective, item)
    assert IndexCodec(items, objectives).unpack(item) == (0, 0, item)


def test_indices_are_wide_whatever_the_items_are() -> None:
    """Those of many items, which a data set may count in int32, do not fit into 32 bits."""
    code = IndexCodec(items=2**30, objectives=4)
    for dtype in (np.int32, np.int64):
        packed = code.pack(9, 3, np.array([0, 2**30 - 1], dtype=dtype))
        assert packed.dtype == np.int64
        assert [code.unpack(index) for index in packed] == [(9, 3, 0), (9, 3, 2**30 - 1)]


@pytest.mark.parametrize(("freq", "expected"), [(4, [4, 4, 4]), ([4], [4, 4, 4]), ([1, 2], [1, 2, 2])])
def test_update_freq_by_epoch(freq, expected):
    assert [batches_of_update(freq, epoch) for epoch in (1, 2, 3)] == expected


@given(SIZES, st.integers(1, 12))
def test_blocks_are_whole_and_hold_every_item_once(sizes, size):
    blocks = group_into_updates(batches_of(sizes), size)
    assert all(len(block) == size for block in blocks)
    assert sorted(i for block in blocks for batch in block for i in batch) == list(range(sum(sizes)))
    empty = sum(len(batch) == 0 for block in blocks for batch in block)
    assert empty == max(0, size - sum(sizes)) if len(blocks) == 1 else empty == 0


@given(SIZES, st.integers(1, 12))
def test_no_batch_becomes_larger(sizes, size):
    """All are parts of those that came, and so within --batch-size, and --max-tokens with its padding, as they are."""
    batches = batches_of(sizes)
    blocks = group_into_updates(batches, size)
    too_few = len(batches) % size and sum(sizes) < size * -(-len(batches) // size)
    whole = [set(batch.tolist()) for batch in batches]
    for part in (part for block in blocks for part in block):
        assert any(set(part.tolist()) <= batch for batch in whole) or (too_few and len(part) == 2)
    if not too_few:
        assert [i for block in blocks for part in block for i in part] == list(range(sum(sizes)))
    assert len(blocks) in (len(batches) // size, -(-len(batches) // size))


def test_what_is_left_of_an_epoch_is_shared_out_evenly():
    """Of a last block, and with the block before it where that is too little."""
    sizes = [[len(part) for part in block] for block in group_into_updates(batches_of([8] * 6), 4)]
    assert sizes == [[8, 8, 8, 8], [4, 4, 4, 4]]
    sizes = [[len(part) for part in block] for block in group_into_updates(batches_of([8] * 4 + [3]), 4)]
    assert sizes == [[4, 4, 4, 4], [4, 4, 8, 3]]


@given(
    sizes=SIZES,
    world=st.sampled_from([1, 2, 3]),
    update_freq=st.sampled_from([1, 2, 4]),
    objectives=st.integers(1, 4),
    epoch=st.integers(1, 3),
)
def test_what_the_ranks_train_on(sizes, world, update_freq, objectives, epoch):
    """Through fairseq's own sharding and grouping, for every world size and update-freq."""
    code = IndexCodec(items=sum(sizes), objectives=objectives)
    order = interleave_objectives(
        [batches_of(sizes)],
        epoch=epoch,
        objectives=objectives,
        block=world * update_freq,
        index_codec=code,
        rng=np.random.default_rng([1, epoch]),
    )
    ranks = [
        list(GroupedIterator(list(ShardedIterator(order, world, rank, fill_value=[])), update_freq))
        for rank in range(world)
    ]
    assert len({len(updates) for updates in ranks}) == 1
    seen_by_objective = collections.defaultdict(list)
    pairs_of_iteration = None
    for number, update in enumerate(zip(*ranks, strict=True)):
        micro_batches = [[code.unpack(i) for i in batch] for rank in update for batch in rank]
        assert len(micro_batches) == world * update_freq
        found = {(e, o) for batch in micro_batches for e, o, _ in batch}
        assert found == {(epoch, number % objectives)}  # one objective, on all ranks, in turns
        pairs = [[item for _, _, item in batch] for batch in micro_batches]
        if number % objectives:
            assert pairs == pairs_of_iteration  # every objective sees the same pairs, batch by batch
        pairs_of_iteration = pairs
        seen_by_objective[number % objectives] += [item for batch in pairs for item in batch]
    assert len(seen_by_objective) == objectives
    for items in seen_by_objective.values():
        assert sorted(items) == list(range(sum(sizes)))  # nothing dropped, nothing twice


@given(SIZES, st.integers(1, 4))
def test_the_order_depends_on_seed_and_epoch_alone(sizes, block):
    def order(seed: int, epoch: int) -> list[list[int]]:
        code = IndexCodec(items=sum(sizes), objectives=2)
        rng = np.random.default_rng([seed, epoch])
        batches = interleave_objectives(
            [batches_of(sizes)], epoch=epoch, objectives=2, block=block, index_codec=code, rng=rng
        )
        return [batch.tolist() for batch in batches]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)


def test_epochs_are_shuffled():
    sizes = [2] * 20
    code = IndexCodec(items=40, objectives=1)
    orders = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        batches = interleave_objectives([batches_of(sizes)], epoch=1, objectives=1, block=1, index_codec=code, rng=rng)
        orders.append([code.unpack(batch[0])[2] for batch in batches])
    assert orders[0] != orders[1] != sorted(orders[1])
    kept = interleave_objectives([batches_of(sizes)], epoch=0, objectives=1, block=1, index_codec=code, rng=None)
    assert [code.unpack(batch[0])[2] for batch in kept] == list(range(0, 40, 2))


def test_windows_follow_one_another():
    batches = batches_of([1] * 40)
    code = IndexCodec(items=40, objectives=2)
    rng = np.random.default_rng(1)
    order = interleave_objectives(
        [batches[20:], batches[:20]], epoch=1, objectives=2, block=3, index_codec=code, rng=rng
    )
    first = [code.unpack(batch[0])[2] for batch in order if code.unpack(batch[0])[1] == 0]
    assert sorted(first[:20]) == list(range(20, 40))
    assert first[:20] != list(range(20, 40))
