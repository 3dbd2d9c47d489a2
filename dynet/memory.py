"""Memory that a training process frees and takes again at each step.

glibc hands every block of more than 32 MB back to the system when it is freed. DyNet's activations are such blocks, so
each step on a CPU asks for some gigabytes anew and faults them in, 4 KB at a time: as much time as it computes, where
the machine is a virtual one (`LOG.md`, 2026-11-29).
"""

from __future__ import annotations

import ctypes
from typing import Final

# of mallopt(3), for parameters that <malloc.h> names so
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_MAX: Final = -4
_NEVER: Final = -1
_GROWS_BY: Final = 256 << 20  # bytes


def keep_freed() -> bool:
    """What is freed stays with this process, for good and for all its threads; gives whether the C library does so.

    The process grows to its peak and stays there. Threads other than the main one gain by it only where they come to
    share the main one's heap.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc: another C library keeps what it keeps
        return False
    asked = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _GROWS_BY))
    taken = [mallopt(parameter, value) for parameter, value in asked]
    return all(taken)
