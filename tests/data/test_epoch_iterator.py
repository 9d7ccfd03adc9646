"""Where an epoch goes on that was interrupted, with as many processes as before, and with others."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fairseq.data.iterators import GroupedIterator
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.data.epoch_iterator import UpdateIterator
from xgpt_fairseq.data.schedule import IndexCodec, interleave_objectives

ITEMS = 61
CODE = IndexCodec(items=ITEMS, objectives=3)


class Numbers(torch.utils.data.Dataset):
    """Items that are their own indices."""

    def __getitem__(self, index: int) -> int:
        return index


class Run:
    """The iterators of all ranks of a training of three objectives."""

    def __init__(self, *, world: int, freq: int, batch: int = 2, skip_remainder: bool = False) -> None:
        batches = [np.arange(i, min(i + batch, ITEMS)) for i in range(0, ITEMS, batch)]

        def draw(_: object, epoch: int) -> list[np.ndarray]:
            rng = np.random.default_rng([1, epoch])
            return interleave_objectives(
                [batches], epoch=epoch, objectives=3, block=world * freq, index_codec=CODE, rng=rng
            )

        self.freq = freq
        self.ranks = [
            UpdateIterator(
                dataset=Numbers(), collate_fn=list, batch_sampler=draw, num_shards=world, shard_id=rank,
                disable_shuffling=True, update_freq=lambda _: freq, skip_remainder_batch=skip_remainder,
            )
            for rank in range(world)
        ]  # fmt: skip

    def updates(self) -> Iterator[tuple[int, list[list[int]]]]:
        """The rest of the epoch: objective and batches of all ranks, sorted, of each update."""
        begun = [rank.next_epoch_itr() for rank in self.ranks]
        while begun[0].has_next():
            batches = [next(rank) for rank in begun for _ in range(self.freq)]
            found = [[CODE.unpack(index) for index in batch] for batch in batches]
            (objective,) = {objective for batch in found for _, objective, _ in batch}  # never two in one update
            yield objective, sorted([item for *_, item in batch] for batch in found)

    def interrupted(self, after: int) -> dict[str, object]:
        list(itertools.islice(self.updates(), after))
        (state,) = {str(rank.state_dict()): rank.state_dict() for rank in self.ranks}.values()
        return state

    def resume(self, state: dict[str, object]) -> list[tuple[int, list[list[int]]]]:
        for rank in self.ranks:
            rank.load_state_dict(state)
        return list(self.updates())


pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory'")


@examples(25)
@given(
    after=st.integers(1, 20), before=st.sampled_from([(1, 4), (2, 2), (4, 1)]), now=st.sampled_from([(1, 4), (2, 2)])
)
def test_as_many_batches_an_update_go_on_exactly_there(after, before, now):
    world, freq = before
    whole = list(Run(world=1, freq=4).updates())
    assert len(whole) == 24
    state = Run(world=world, freq=freq).interrupted(after)
    rest = Run(world=now[0], freq=now[1]).resume(state)
    assert rest == whole[after:]


@given(after=st.integers(1, 20), before=st.sampled_from([1, 3, 4, 16]), now=st.sampled_from([1, 3, 4, 16, 50]))
def test_no_update_has_two_objectives_whatever_an_update_was(after, before, now):
    """`updates` asserts it. It goes on at the same part of the epoch, of which at least one update is left."""
    first = Run(world=1, freq=before)
    whole, of = len(first.ranks[0]) // before, len(Run(world=1, freq=now).ranks[0]) // now
    if after >= whole:
        return
    rest = Run(world=1, freq=now).resume(first.interrupted(after))
    assert 1 <= len(rest) <= of
    assert abs((of - len(rest)) / of - after / whole) <= 1 / of


@pytest.mark.parametrize(("before", "after", "now"), [(1, 92, 4), (4, 22, 16), (16, 5, 4), (4, 23, 4)])
def test_an_update_is_left_beside_the_one_that_is_dropped(before, after, now):
    """--skip-remainder-batch drops an epoch's last update: one less is left to go on with."""
    state = Run(world=1, freq=before).interrupted(after)
    run = Run(world=1, freq=now, skip_remainder=True)
    (rank,) = run.ranks
    rank.load_state_dict(state)
    assert len(GroupedIterator(rank.next_epoch_itr(), now, skip_remainder_batch=True)) > rank.iterations_in_epoch // now


def test_another_order_is_said(caplog):
    state = Run(world=2, freq=4).interrupted(5)
    with caplog.at_level(logging.WARNING):
        Run(world=4, freq=2).resume(state)
        assert not caplog.messages
        Run(world=1, freq=4).resume(state)
    assert caplog.messages == [
        "epoch 1 was interrupted after 5 of 12 updates of 8 batches each, and goes on after 10 of 24 updates of 4, in "
        "another order: some of its texts come again, others do not (with the same --batch-size, and the same product "
        "of --update-freq and the number of processes, it would go on exactly there)"
    ]


def test_an_epoch_s_end_and_earlier_versions_states_are_fairseqs_own():
    run = Run(world=1, freq=4)
    list(run.updates())
    assert run.ranks[0].state_dict() == {"version": 2, "epoch": 2, "iterations_in_epoch": 0, "shuffle": False}
    whole = list(Run(world=1, freq=4).updates())
    state = {"version": 2, "epoch": 1, "iterations_in_epoch": 8, "shuffle": False}
    assert Run(world=1, freq=4).resume(state) == whole[2:]
