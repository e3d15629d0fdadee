"""Work cut into numbered pieces, whose results are files: several processes, and what was interrupted goes on."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from kvg.errors import DataError, KVGError
from kvg.records import read_json
from kvg.work.progress import progress_bar

T = TypeVar("T")
_AHEAD = 2  # pieces a process that wait for it
_PR_SET_PDEATHSIG = 1  # of prctl, see its manual page


class Pieces:
    """Results of numbered pieces of work.

    Args:
        folder: that keeps them until the whole is done.
        identity: of the work; results of other work are thrown away.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        known = folder / "identity"
        if folder.is_dir() and (not known.is_file() or known.read_text("ascii") != digest):
            shutil.rmtree(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(known, digest)

    def run(
        self,
        work: Callable[[T], Any],
        pieces: Sequence[T],
        workers: int,
        title: str,
        start: Callable[..., None] | None = None,
        start_args: tuple[Any, ...] = (),
    ) -> None:
        """Does what is not done yet.

        Args:
            work: makes the JSON of a piece; has to be importable where there are several processes.
            pieces: what it is given.
            workers: processes; 1 works in this one.
            title: of the progress bar.
            start: called once in each process before it works.
            start_args: its arguments.

        Raises:
            KVGError: what a piece raised, or that a process was killed.
        """
        missing = sorted(set(range(len(pieces))) - set(self.finished()))
        began = len(pieces) - len(missing)
        with progress_bar() as progress:
            task = progress.add_task(title, total=len(pieces), completed=began, began=began)
            with contextlib.closing(each(work, pieces, missing, workers, title, start, start_args)) as coming:
                for number, result in coming:
                    self.save(number, result)
                    progress.advance(task)

    def finished(self) -> list[int]:
        """Numbers of the pieces that are done."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.json") if path.stem.isdecimal())

    def results(self, num: int) -> Iterator[Any]:
        """The results of pieces 0 to ``num - 1``, in order.

        Raises:
            DataError: a file of them is damaged.
        """
        for number in range(num):
            yield read_json(self._path(number))

    def clear(self) -> None:
        """Removes all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def save(self, number: int, result: Any) -> None:
        """Keeps the result of a piece that was done elsewhere than in ``run``; it has to be JSON.

        Raises:
            DataError: the disk is full, or cannot be written to.
        """
        with writing(self.folder):
            write_whole(self._path(number), json.dumps(result))


def each(
    work: Callable[[T], Any],
    pieces: Sequence[T],
    numbers: Sequence[int],
    workers: int,
    title: str,
    start: Callable[..., None] | None = None,
    start_args: tuple[Any, ...] = (),
) -> Generator[tuple[int, Any], None, None]:
    """Does pieces of work; keeps nothing. The arguments are those of ``Pieces.run``, and which pieces are done.

    Yields:
        Number and result, as they come.

    Raises:
        KVGError: what a piece raised, or that a process was killed.
    """
    if workers <= 1:
        if start:
            start(*start_args)
        for number in numbers:
            yield number, work(pieces[number])
        return
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(start, start_args)) as pool:
        try:
            yield from _in_turns(pool, work, pieces, numbers, workers * _AHEAD)
        except BrokenProcessPool as error:
            remedy = "a process was killed, perhaps for want of memory; take fewer workers and run it again"
            raise DataError(title, "workers", remedy) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_turns(
    pool: ProcessPoolExecutor, work: Callable[[T], Any], pieces: Sequence[T], missing: Sequence[int], ahead: int
) -> Iterator[tuple[int, Any]]:
    """Results as they come; only a few pieces wait at a time, so that a stop is a stop."""
    waiting: dict[Future[Any], int] = {}
    rest = iter(missing)
    while True:
        for number in rest:
            waiting[pool.submit(work, pieces[number])] = number
            if len(waiting) >= ahead:
                break
        if not waiting:
            return
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield waiting.pop(future), future.result()


def _begin(start: Callable[..., None] | None, start_args: tuple[Any, ...]) -> None:
    follow_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent ends it in order
    if start:
        start(*start_args)


def follow_parent() -> None:
    """Lets this process end when the one that started it does: a killed parent leaves nobody behind."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


class writing:  # a context manager that reads as what it is
    """Turns what a disk refuses into a clear error.

    Args:
        folder: that is written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Passes on everything but the disk's errors.

        Raises:
            DataError: the disk is full, or cannot be written to.
        """
        if isinstance(error, OSError) and not isinstance(error, KVGError):
            remedy = f"cannot be written ({error.strerror}); make room or choose another folder, and run it again"
            raise DataError(str(self.folder), "out", remedy) from error
