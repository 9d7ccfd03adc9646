"""A switch to compute everything in this folder with torch's plain operators.

    XGPT_KERNELS=plain fairseq-train …        in Python:  with plain(): …

For comparison, debugging, and reading: the plain branch of a kernel defines its result.
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
    """Compute plainly within the block. Build, run and search a model within the same block, or outside any."""
    global _chosen
    before, _chosen = _chosen, "plain"
    try:
        yield
    finally:
        _chosen = before
