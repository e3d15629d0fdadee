"""Several processes of one run: which of them this is, and that none outlives the one that started it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kvg.work.pool import follow_parent

_LAUNCHER = "KVG_LAUNCHER"  # process that starts the others


def is_first() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def lead_others() -> None:
    """Notes that processes which are started from now on belong to this one."""
    os.environ[_LAUNCHER] = str(os.getpid())


@contextmanager
def leading() -> Iterator[None]:
    """Within this block they do, where this is the first."""
    before = os.environ.get(_LAUNCHER)
    if is_first():
        lead_others()
    try:
        yield
    finally:
        os.environ.pop(_LAUNCHER, None)
        if before is not None:
            os.environ[_LAUNCHER] = before


def follow_launcher() -> None:
    """A process that was started by the first one ends with it, also where that is killed."""
    launcher = os.environ.get(_LAUNCHER, "")
    if is_first() or not launcher:
        return
    follow_parent()
    if os.getppid() != int(launcher):  # it was quicker
        raise SystemExit(1)
