"""Sets up a process that computes on a CPU: threads and memory allocation."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

SMALL_MODEL: Final = 100_000_000  # weights; below it one thread per process is used

# Options of glibc's mallopt, see its manual page.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def prepare_cpu(num_weights: int = 0) -> bool:
    """Uses one thread for a small model unless OMP_NUM_THREADS is set, and keeps freed memory.

    For tiny models synchronising threads costs more than it gains, especially beside other processes. A model of
    ``SMALL_MODEL`` weights or more keeps the threads that torch has chosen.

    Args:
        num_weights: of the model; 0 if it is not known before it is built.

    Returns:
        Whether the number of threads was set here.
    """
    import torch  # this module is also imported by commands that do not need torch

    keep_freed_memory()
    if "OMP_NUM_THREADS" in os.environ or num_weights >= SMALL_MODEL:
        return False
    torch.set_num_threads(1)
    return True


def keep_freed_memory() -> bool:
    """Lets the process keep freed memory for its next allocation.

    By default glibc returns large blocks to the kernel, which clears and maps them again at the next allocation.
    ``tests/benchmarks/memory.py`` measures the cost for rollouts and scoring passes of the lab's model. The drawback is
    that the memory of the process never shrinks.

    Returns:
        Whether the C library accepted the settings; only glibc has them.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all([mallopt(option, value) == 1 for option, value in settings])


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
