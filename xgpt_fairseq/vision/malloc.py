"""The C library's memory, set for a network whose maps are larger than what it likes to keep."""

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

    By default glibc gives each freed array of some megabytes back to the system and gets it anew, page by page, each
    page cleared: with the maps of a photo that costs a third of the time on a CPU, and more the more threads do it. The
    process then stays as large as it ever was.

    Returns:
        Whether there is such a setting; other C libraries have none.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        return False
    values = {M_MMAP_THRESHOLD: MAX_INT32, M_TRIM_THRESHOLD: MAX_INT32, M_TOP_PAD: TOP_PAD}
    return all(mallopt(option, value) == 1 for option, value in values.items())
