"""How a process that computes on a CPU is set up: threads, and memory that is kept."""

from __future__ import annotations

import ctypes
import os
import sys

# Options of glibc's mallopt, see its manual page.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def prepare_cpu() -> bool:
    """Settles on one thread, unless OMP_NUM_THREADS says otherwise, and keeps freed memory.

    Tiny models lose more at the barriers between threads than they gain, and beside another process far more.

    Returns:
        Whether the number of threads was set here.
    """
    import torch  # commands that compute nothing import this module, too

    keep_freed_memory()
    if "OMP_NUM_THREADS" in os.environ:
        return False
    torch.set_num_threads(1)
    return True


def keep_freed_memory() -> bool:
    """Lets the process keep memory that it has freed, for its next allocation.

    By default glibc hands large blocks back to the kernel, which clears and maps them anew a moment later;
    ``tests/benchmarks/memory.py`` measures what that costs rollouts and scoring passes of the lab's model. The price is
    that a process never shrinks below its largest size.

    Returns:
        Whether the C library could be told so; only glibc can.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all([mallopt(option, value) == 1 for option, value in settings])


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
