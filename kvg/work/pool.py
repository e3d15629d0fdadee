"""Runs units of work in several processes. No process outlives the one that started it."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from kvg.errors import DataError

T = TypeVar("T")
_AHEAD = 2  # units that are submitted per process
_PR_SET_PDEATHSIG = 1  # option of prctl, see its manual page


def map_processes(
    work: Callable[[T], Any], units: Sequence[T], numbers: Sequence[int], workers: int, title: str
) -> Generator[tuple[int, Any], None, None]:
    """Calls ``work`` on units.

    Args:
        work: returns the result of a unit. Each process gets it once, so it may contain data that all units share. With
            several processes, it and the results must be picklable.
        units: all units.
        numbers: numbers of the units to run.
        workers: number of processes; 1 runs the units in this process.
        title: name of the work, for errors.

    Yields:
        Number and result, in the order of completion.

    Raises:
        KVGError: a unit failed, or a process was killed.
    """
    if workers <= 1:
        for number in numbers:
            yield number, work(units[number])
        return
    with ProcessPoolExecutor(workers, initializer=_Worker.start, initargs=(work,)) as pool:
        try:
            yield from _in_turns(pool, units, numbers, workers * _AHEAD)
        except BrokenProcessPool as error:
            remedy = "a process was killed, perhaps for lack of memory; use fewer workers and run it again"
            raise DataError(title, "workers", remedy) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Worker:
    """The work of this process; it is set once, when the process starts."""

    work: Callable[[Any], Any]

    @classmethod
    def start(cls, work: Callable[[Any], Any]) -> None:
        follow_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its processes
        cls.work = staticmethod(work)

    @classmethod
    def call(cls, unit: Any) -> Any:
        return cls.work(unit)


def _in_turns(
    pool: ProcessPoolExecutor, units: Sequence[T], numbers: Sequence[int], ahead: int
) -> Iterator[tuple[int, Any]]:
    """Yields results as they come. Only a few units are submitted at a time, so that an interrupt ends it soon."""
    waiting: dict[Future[Any], int] = {}
    rest = iter(numbers)
    while True:
        for number in rest:
            waiting[pool.submit(_Worker.call, units[number])] = number
            if len(waiting) >= ahead:
                break
        if not waiting:
            return
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield waiting.pop(future), future.result()


def follow_parent() -> None:
    """Makes this process end when its parent ends, even if the parent is killed (Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
