"""The loss over the vocabulary on a GPU: gradients that are small in half precision."""

from __future__ import annotations

import torch

from xgpt_fairseq.kernels.cross_entropy import cross_entropy

ROWS, WORDS = 8_000, 100


def test_small_gradients_of_many_rows_in_float16(device):
    """As of fairseq's loss of a large batch with a small loss scale: all that float16 has in full is right."""
    random = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(ROWS, WORDS, generator=random)).half()
    target = torch.randint(WORDS, (ROWS,), generator=random).to(device)

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        given = logits.to(device, dtype).requires_grad_()
        loss, *_ = cross_entropy(given * 1, target, label_smoothing=0.0)  # in the memory of the product
        (loss * 4 / ROWS).backward()
        return given.grad.float()

    exact, found = gradient(torch.float32), gradient(torch.float16)
    normal = exact.abs() >= torch.finfo(torch.float16).smallest_normal
    assert normal.sum() > ROWS / 2
    torch.testing.assert_close(found[normal], exact[normal], rtol=1e-3, atol=0)
