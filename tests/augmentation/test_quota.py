"""How many captions each image gets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.augmentation.quota import quotas


@given(st.integers(0, 200), st.floats(0, 20), st.integers(0, 5))
def test_the_average_is_met_as_evenly_as_it_goes(images: int, per_image: float, seed: int) -> None:
    counts = quotas(images, per_image, seed)
    assert len(counts) == images
    assert abs(counts.sum() - images * per_image) <= 0.5 + 1e-9
    assert images == 0 or counts.max() - counts.min() <= 1
    assert (counts == quotas(images, per_image, seed)).all()


def test_the_paper_s_number() -> None:
    """62k captions for the 29k images of Flickr30k's training split (section 6.1), about 2.1 each."""
    counts = quotas(29_000, 2.1, seed=1)
    assert counts.sum() == 60_900 and (counts == 3).sum() == 2_900 and (counts == 2).sum() == 26_100
    # the tenth is chosen at random, and by the seed
    assert 1_200 < (counts[:14_500] == 3).sum() < 1_700
    assert (counts != quotas(29_000, 2.1, seed=2)).any()
