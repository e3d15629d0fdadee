"""Signal handling of a program that starts others: a signal that ends it also ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def ends_interrupt() -> Iterator[None]:
    """Converts SIGTERM and SIGHUP to KeyboardInterrupt within the block, so that the program can clean up."""
    ends = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, _interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Delays interrupts until after the block: an interrupt before a started child is recorded would orphan it."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    arrived: list[int] = []
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(n))]
    before = {number: signal.signal(number, lambda n, _frame: arrived.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to the process group that a process leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the whole group has ended
        os.killpg(process.pid, number)
