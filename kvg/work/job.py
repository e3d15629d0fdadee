"""Jobs: long work that can be interrupted and resumed.

A job has an *identity*: a text of everything that its result depends on. Its work is divided into numbered *units*; the
result of each unit is saved in a file. When all units are done, a *record* with the identity is written, and the files
of the units are removed. So the files show three states: complete, interrupted, and not started or made differently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kvg.records import is_utf8, own_record
from kvg.work.files import atomic_write, disk_errors
from kvg.work.pool import map_processes
from kvg.work.progress import progress_bar

T = TypeVar("T")
IDENTITY = "identity"  # key in the record of a complete job


class Units:
    """Results of numbered units of work, one file each. A file counts only if it has the expected mark.

    Args:
        folder: folder of the files.
        marks: text of everything that the results depend on, for all units, or one text for each unit.
    """

    def __init__(self, folder: Path, marks: str | Sequence[str]) -> None:
        self.units = folder
        self._marks = digest(marks) if isinstance(marks, str) else [digest(mark) for mark in marks]

    def run(self, work: Callable[[T], Any], units: Sequence[T], workers: int, title: str) -> None:
        """Runs the units that are not done.

        Args:
            work: returns the result of a unit, which must be JSON; see ``map_processes``.
            units: arguments of ``work``.
            workers: number of processes.
            title: title of the progress bar.

        Raises:
            KVGError: a unit failed, or a process was killed. Results of finished units are kept.
        """
        left = self.left(len(units))
        began = len(units) - len(left)
        with progress_bar() as progress:
            task = progress.add_task(title, total=len(units), completed=began, began=began)
            with contextlib.closing(map_processes(work, units, left, workers, title)) as results:
                for number, result in results:
                    self.save(number, result)
                    progress.advance(task)

    def done(self) -> list[int]:
        """Returns the numbers of the units that are done."""
        numbers = sorted(int(path.stem) for path in self.units.glob("[0-9]*.json") if path.stem.isdecimal())
        return [number for number in numbers if self._read(number) is not None]

    def has(self, number: int) -> bool:
        """Returns whether a unit is done."""
        return self._read(number) is not None

    def left(self, num: int | None = None) -> list[int]:
        """Returns the numbers of the units that are not done.

        Args:
            num: number of all units; None if each unit has its own mark.
        """
        return sorted(set(range(len(self._marks) if num is None else num)) - set(self.done()))

    def save(self, number: int, result: Any) -> None:
        """Saves the result of a unit.

        Raises:
            DataError: the disk cannot be written.
        """
        with disk_errors(self.units):
            self.units.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path(number), json.dumps({"mark": self._mark(number), "result": result}))

    def results(self, num: int | None = None) -> Iterator[Any]:
        """Yields the results of all units, in order.

        Args:
            num: number of all units; None if each unit has its own mark.

        Raises:
            RuntimeError: a unit is not done.
        """
        for number in range(len(self._marks) if num is None else num):
            unit = self._read(number)
            if unit is None:
                raise RuntimeError(f"unit {number} in {self.units} is not done")
            yield unit["result"]

    def _mark(self, number: int) -> str | None:
        if isinstance(self._marks, str):
            return self._marks
        return self._marks[number] if number < len(self._marks) else None

    def _path(self, number: int) -> Path:
        return self.units / f"{number:06d}.json"

    def _read(self, number: int) -> dict[str, Any] | None:
        unit, mark = own_record(self._path(number)), self._mark(number)
        return unit if mark is not None and unit.get("mark") == mark and "result" in unit else None

    def discard(self) -> None:
        """Removes the results of all units."""
        shutil.rmtree(self.units, ignore_errors=True)


class Job(Units):
    """A job: its units, and the record that shows that its result is complete.

    Args:
        folder: folder of the result.
        record: name of the JSON file in ``folder`` that shows that the result is complete.
        identity: text of everything that the result depends on.
        marks: text of everything that the units depend on, or one text for each unit; None for ``identity``. Units of a
            set also depend on the revision of the code, its complete result does not.
        units: folder of the units; by default ``folder/NAME.units`` with the name of the record.
    """

    def __init__(
        self,
        folder: Path,
        record: str,
        identity: str,
        marks: str | Sequence[str] | None = None,
        units: Path | None = None,
    ) -> None:
        super().__init__(units or folder / f"{Path(record).stem}.units", identity if marks is None else marks)
        self.folder, self.record = folder, folder / record
        self.identity = digest(identity)

    def is_complete(self, *results: Path) -> bool:
        """Returns whether the result is complete and has this identity.

        Args:
            results: files that must also exist.
        """
        return own_record(self.record).get(IDENTITY) == self.identity and all(path.exists() for path in results)

    def reopen(self) -> None:
        """Removes the record, so that the result is no longer complete.

        Raises:
            DataError: the disk cannot be written.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.record.unlink(missing_ok=True)

    def complete(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the record, and removes the units. Call it after everything else is written.

        Args:
            content: content of the record without the identity; it must be JSON.

        Returns:
            The record.

        Raises:
            DataError: the disk cannot be written.
        """
        record = {**content, IDENTITY: self.identity}
        text = json.dumps(record, indent=1, ensure_ascii=False, default=str)
        if not is_utf8(text):  # names of files need not be valid text
            text = json.dumps(record, indent=1, default=str)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.record, text + "\n")
        self.discard()
        return record


def digest(text: str) -> str:
    """Returns the SHA-256 of a text, in hexadecimal; it may contain file names that are not valid UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def share_of(left: Sequence[int], rank: int, world: int) -> list[tuple[int, bool]]:
    """Returns the units of one process of a Lightning run, each with whether its result is kept.

    The processes of a sharded model must run the same number of steps. A process with one step less repeats its last
    unit (or the first of all if it has none), and that result is not kept.

    >>> [share_of([4, 5, 7], rank, 2) for rank in range(2)]
    [[(4, True), (7, True)], [(5, True), (5, False)]]
    """
    own = [(number, True) for number in left[rank::world]]
    if left and len(own) < math.ceil(len(left) / world):
        own.append((own[-1][0] if own else left[0], False))
    return own
