"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes

# <malloc.h> of the GNU C library.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
LARGEST_MMAP_THRESHOLD = 32 << 20  # the library refuses more
KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Lets this process reuse freed memory in place of giving it back to the system and asking for it again.

    An update allocates and frees dozens of arrays of a few megabytes; fetching their pages anew takes up to a third of
    its time. Does nothing where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in (
        (M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD),
        (M_TRIM_THRESHOLD, KEPT),
        (M_TOP_PAD, 64 << 20),
        (M_ARENA_MAX, 1),  # a thread's own arena gives its memory back all the same
    ):
        mallopt(parameter, value)
