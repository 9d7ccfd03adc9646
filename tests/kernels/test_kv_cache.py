"""The cache of a search against a list of texts: every row sees exactly what it descends from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.kernels import kv_cache as search_cache
from xgpt_fairseq.kernels.kv_cache import SearchCache, kept_images

HEADS, WIDTH = 2, 3


@given(images=st.integers(1, 4), group=st.integers(1, 4), steps=st.integers(1, 40), data=st.data())
@settings(max_examples=30)
def test_a_row_sees_the_text_that_it_goes_on_from(images, group, steps, data):
    cache = SearchCache(images=images, rows=images * group, device=torch.device("cpu"))
    texts: list[list[list[torch.Tensor]]] = [[[] for _ in range(group)] for _ in range(images)]  # keys so far
    for _ in range(steps):
        cache.next_position()
        k = torch.randn(len(texts), HEADS, group, WIDTH)
        keys, values = cache.append(0, k, -k)
        other, _ = cache.append(1, 2 * k, k)  # layers do not mix
        for image, rows in enumerate(texts):
            for row in range(group):
                rows[row] = [*rows[row], k[image, :, row]]
                seen = slice(None) if cache.mask is None else cache.mask[image, 0, row] == 0
                expected = torch.stack(rows[row], dim=1)  # (heads, t, d)
                assert torch.equal(keys[image][:, seen], expected)
                assert torch.equal(values[image][:, seen], -expected)
                assert torch.equal(other[image][:, seen], 2 * expected)
        kept = data.draw(st.lists(st.sampled_from(range(len(texts))), min_size=1, unique=True).map(sorted))
        within = [[data.draw(st.integers(0, group - 1)) for _ in range(group)] for _ in kept]
        order = torch.tensor([image * group + row for image, rows in zip(kept, within, strict=True) for row in rows])
        cache.reorder(order)
        texts = [[texts[image][row] for row in rows] for image, rows in zip(kept, within, strict=True)]


def test_images_follow_a_reordering():
    cache = SearchCache(images=3, rows=6, device=torch.device("cpu"))
    k = torch.randn(3, HEADS, 5, WIDTH)
    cache.of_memory(0, lambda: (k, -k))
    cache.next_position()
    cache.append(0, torch.zeros(3, HEADS, 2, WIDTH), torch.zeros(3, HEADS, 2, WIDTH))
    cache.reorder(torch.tensor([1, 0, 5, 5]))
    keys, values = cache.of_memory(0, pytest.fail)
    assert torch.equal(keys, k[[0, 2]]) and torch.equal(values, -k[[0, 2]])


@pytest.mark.parametrize("group", [1, 2])
def test_nothing_is_moved_while_there_is_room(group):
    """Neither a step nor a reordering of rows copies keys or values."""
    cache = SearchCache(images=2, rows=2 * group, device=torch.device("cpu"))
    places = set()
    for _ in range(search_cache.ROOM):
        cache.next_position()
        keys, _ = cache.append(0, torch.randn(2, HEADS, group, WIDTH), torch.randn(2, HEADS, group, WIDTH))
        places.add(keys.data_ptr())
        cache.reorder(torch.arange(2 * group).view(2, group).flip(1).flatten())
    assert len(places) == 1


@given(images=st.integers(1, 5), beam=st.integers(1, 4), data=st.data())
@settings(max_examples=30)
def test_kept_images_follows_any_search(images, beam, data):
    assert kept_images(torch.arange(images).repeat_interleave(beam), rows=images, images=images) is None
    keep = data.draw(st.lists(st.sampled_from(range(images)), min_size=1, unique=True).map(sorted))
    order = [k * beam + data.draw(st.integers(0, beam - 1)) for k in keep for _ in range(beam)]
    kept = kept_images(torch.tensor(order), rows=images * beam, images=images)
    assert (list(range(images)) if kept is None else kept.tolist()) == keep
