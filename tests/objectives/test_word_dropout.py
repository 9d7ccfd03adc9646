"""Image captioning with `word_dropout`: which preceding words the decoder does not see, and when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.objectives.batches import SYMBOLS, objective_of, sample_of

LENGTHS = [9, 1, 4, 30]
CAPTIONS = [[5 + (i + j) % 15 for j in range(length)] for i, length in enumerate(LENGTHS)]


class Recorder(torch.nn.Module):
    """A model that keeps what it is given, and finds all words alike."""

    def forward(self, **inputs: Any) -> tuple[Tensor, None]:
        self.inputs = inputs
        return torch.zeros(len(inputs["output_index"]), SYMBOLS.mask + 1), None


def read(rate: float, *, training: bool = True, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The decoder's text that a model is given, and that of the batch: (C, T)."""
    objective = objective_of("ic", **({"word_dropout": rate} if rate else {}))
    sample, _ = sample_of(objective, {"features": torch.zeros(len(CAPTIONS), 1, 1)}, CAPTIONS)
    before = sample["net_input"]["prev_output_tokens"].clone()
    model = Recorder().train(training)
    torch.manual_seed(seed)
    result = objective.loss(model, sample, label_smoothing=0.0)
    assert torch.equal(sample["net_input"]["prev_output_tokens"], before)  # other objectives may read it, too
    assert result.num_targets == sum(length + 1 for length in LENGTHS)  # every word is predicted
    return model.inputs["prev_output_tokens"], before


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_words_are_masked_as_often_as_it_says_and_nothing_else(rate: float) -> None:
    masked = words = 0
    for seed in range(200):
        seen, whole = read(rate, seed=seed)
        changed = seen != whole
        assert (seen[changed] == SYMBOLS.mask).all()
        assert (seen[:, 0] == SYMBOLS.eos).all()
        is_word = (whole != SYMBOLS.pad) & (whole != SYMBOLS.eos)
        assert not changed[~is_word].any()
        masked, words = masked + int(changed.sum()), words + int(is_word.sum())
    deviation = (rate * (1 - rate) / words) ** 0.5
    assert abs(masked / words - rate) < 5 * deviation


def test_the_draw_is_that_of_torch_s_generator() -> None:
    assert torch.equal(read(0.5, seed=3)[0], read(0.5, seed=3)[0])
    assert not torch.equal(read(0.5, seed=3)[0], read(0.5, seed=4)[0])


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_validation_and_the_default_see_all_words(rate: float, training: bool) -> None:
    seen, whole = read(rate, training=training)
    assert torch.equal(seen, whole)
