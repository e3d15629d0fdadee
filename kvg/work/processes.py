"""The processes of one run: finds the first one, and ends the others with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kvg.work.pool import follow_parent

_LAUNCHER = "KVG_LAUNCHER"  # id of the process that starts the others


def is_first() -> bool:
    """Returns whether this is the first of several processes, or the only one."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def lead_others() -> None:
    """Records this process as the parent of processes that are started from now on."""
    os.environ[_LAUNCHER] = str(os.getpid())


@contextmanager
def leading() -> Iterator[None]:
    """Calls ``lead_others`` for the duration of the block, if this is the first process."""
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
    """Makes a process that was started by the first one end with it, even if that is killed."""
    launcher = os.environ.get(_LAUNCHER, "")
    if is_first() or not launcher:
        return
    follow_parent()
    if os.getppid() != int(launcher):  # the parent has already ended
        raise SystemExit(1)
