"""Configures the C library's memory allocation for a network with large feature maps."""

from __future__ import annotations

import ctypes
from typing import Final

# <malloc.h> of glibc
M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_THRESHOLD: Final = -3

MAX_INT32: Final = 2**31 - 1
TOP_PAD: Final = 1 << 28


def keep_freed_memory() -> bool:
    """Make this process keep the memory that it frees, for its next large arrays.

    By default glibc returns each freed array of some megabytes to the system and requests it again, page by page, each
    page cleared. For a photo's feature maps this takes a third of the time on a CPU, and more with more threads. With
    this setting the memory of the process never shrinks.

    Returns:
        Whether the setting exists; other C libraries do not have it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        return False
    values = {M_MMAP_THRESHOLD: MAX_INT32, M_TRIM_THRESHOLD: MAX_INT32, M_TOP_PAD: TOP_PAD}
    return all(mallopt(option, value) == 1 for option, value in values.items())
