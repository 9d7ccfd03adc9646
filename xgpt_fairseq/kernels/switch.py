"""One switch for this folder: with it, everything is computed by torch's plain operators.

    XGPT_KERNELS=plain fairseq-train …        in Python:  with plain(): …

For comparison, for debugging, and for readers: what a kernel computes is what stands in its plain branch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_CHOICES = ("fast", "plain")
_chosen = os.environ.get("XGPT_KERNELS", "fast")
if _chosen not in _CHOICES:
    raise ValueError(f"XGPT_KERNELS is {_chosen!r}; it must be one of {', '.join(_CHOICES)}")


def fast() -> bool:
    """Whether kernels may take their fast branches."""
    return _chosen == "fast"


@contextmanager
def plain() -> Iterator[None]:
    """Compute plainly within; a model is built, run and searched within one such block or none."""
    global _chosen
    before, _chosen = _chosen, "plain"
    try:
        yield
    finally:
        _chosen = before
