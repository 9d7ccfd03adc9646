"""Captions in groups beside their images, against loops over captions."""

from __future__ import annotations

import collections

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.kernels.grouping import Groups

# the image of each caption: 1 to 5 images, each at least once, in any order
IMAGE_INDEX = st.integers(1, 5).flatmap(
    lambda images: (
        st.lists(st.integers(0, images - 1), max_size=9)
        .map(lambda more: [*range(images), *more])
        .flatmap(st.permutations)
    )
)


def captions_of(index: list[int], image: int) -> list[int]:
    return [caption for caption, other in enumerate(index) if other == image]


@given(index=IMAGE_INDEX, heads=st.integers(1, 3), length=st.integers(1, 3))
def test_an_image_s_captions_lie_side_by_side_and_come_back(index, heads, length):
    images, size = max(index) + 1, max(collections.Counter(index).values())
    x = torch.arange(len(index) * heads * length * 2).view(len(index), heads, length, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xgpt_fairseq.kernels.grouping.MOST_PLACES", 100)
        groups = Groups.of(torch.tensor(index), images)
    assert groups.image is None
    grouped = groups.fold_captions(x, images)
    assert grouped.shape == (images, heads, size * length, 2)
    for image in range(images):
        own = captions_of(index, image)
        own += own[:1] * (size - len(own))  # what is left over is the image's own, so that nothing unusual is computed
        assert torch.equal(grouped[image], torch.cat([x[caption] for caption in own], dim=1))
    assert torch.equal(groups.unfold_captions(grouped, length), x)


@given(images=st.integers(1, 3), group=st.integers(1, 3), heads=st.integers(1, 3), length=st.integers(1, 4))
def test_equal_groups_need_no_index(images, group, heads, length):
    x = torch.arange(images * group * heads * length * 2).view(images * group, heads, length, 2)
    grouped = Groups().fold_captions(x, images)
    assert torch.equal(
        grouped, Groups.of(torch.arange(images).repeat_interleave(group), images).fold_captions(x, images)
    )
    assert torch.equal(grouped[-1, :, -length:], x[-1])  # an image's last caption stands last
    assert torch.equal(Groups().unfold_captions(grouped, length), x)


def test_what_is_left_over_gets_no_gradient():
    index = torch.tensor([0, 0, 0, 1])
    x = torch.randn(4, 1, 2, 3, requires_grad=True)
    groups = Groups.of(index, 2)
    grouped = groups.fold_captions(x, 2)
    grouped.retain_grad()
    groups.unfold_captions(grouped, 2).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    of_places = grouped.grad.view(2, 3, 2 * 3)  # of each of an image's three places
    assert of_places.mean(dim=2).tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("counts", "copied"), [([5] * 12 + [4], False), ([5] + [1] * 59, True), ([2] + [1] * 62, False)]
)
def test_keys_are_copied_where_most_places_would_be_left_over(counts, copied):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    groups = Groups.of(index, len(counts))
    assert (groups.image is not None) == copied
    if copied:
        assert torch.equal(groups.image, index) and groups.row_at is groups.place_of is None
    else:
        assert len(groups.row_at) == len(counts) * max(counts) <= 2 * len(index)
