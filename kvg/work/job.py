"""Long work that can be interrupted and resumed: what is done, of which identity, and what is left.

A job has an *identity*: a text of all that its result depends on. Its work is cut into numbered *units*; the result of
each is kept in a file of its own. When all are done, a *record* with the identity is written last, and the units are
removed. So three states can be told apart from the files alone: complete, interrupted, and not begun or made otherwise.
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
    """Results of numbered units of work, a file each. A file counts only where its mark is the expected one.

    Args:
        folder: of the files.
        marks: all that the results depend on: a text for all units, or one for each.
    """

    def __init__(self, folder: Path, marks: str | Sequence[str]) -> None:
        self.units = folder
        self._marks = digest(marks) if isinstance(marks, str) else [digest(mark) for mark in marks]

    def run(self, work: Callable[[T], Any], units: Sequence[T], workers: int, title: str) -> None:
        """Does the units that are left.

        Args:
            work: makes the result of a unit, which must be JSON; see ``map_processes``.
            units: what ``work`` is called with.
            workers: processes.
            title: of the progress bar.

        Raises:
            KVGError: an error of a unit, or a process was killed. What is done is kept.
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
        """Numbers of the units that are done."""
        numbers = sorted(int(path.stem) for path in self.units.glob("[0-9]*.json") if path.stem.isdecimal())
        return [number for number in numbers if self._read(number) is not None]

    def left(self, num: int | None = None) -> list[int]:
        """Numbers of the units that are not done.

        Args:
            num: of all units; None where each unit has its own mark.
        """
        return sorted(set(range(len(self._marks) if num is None else num)) - set(self.done()))

    def save(self, number: int, result: Any) -> None:
        """Keeps the result of a unit.

        Raises:
            DataError: the disk refuses.
        """
        with disk_errors(self.units):
            self.units.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path(number), json.dumps({"mark": self._mark(number), "result": result}))

    def results(self, num: int | None = None) -> Iterator[Any]:
        """The results of all units, in order.

        Args:
            num: of all units; None where each unit has its own mark.

        Raises:
            RuntimeError: one is not done.
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
    """One piece of long work: its units, and the record that says that its result is complete.

    Args:
        folder: of the result.
        record: name of the JSON file in ``folder`` that says that the result is complete.
        identity: all that the result depends on.
        marks: what the units depend on, where that is not ``identity``: a text for all of them (the code's revision
            matters while a set is being made, and no more when it is complete), or one for each unit.
        units: folder of the units; ``folder/NAME.units`` by default, NAME being that of the record.
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
        """Whether the result is there, with this identity.

        Args:
            results: files that must be there, too.
        """
        return own_record(self.record).get(IDENTITY) == self.identity and all(path.exists() for path in results)

    def reopen(self) -> None:
        """Removes the record: from here on the result is not complete.

        Raises:
            DataError: the disk refuses.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.record.unlink(missing_ok=True)

    def complete(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the record, after everything else, and removes the units.

        Args:
            content: of the record, beside the identity; must be JSON.

        Returns:
            The record.

        Raises:
            DataError: the disk refuses.
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
    """SHA-256 of a text, in hexadecimal; names of files in it need not be valid text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def share_of(left: Sequence[int], rank: int, world: int) -> list[tuple[int, bool]]:
    """The units of one process of a Lightning run, each with whether its result is due.

    The processes of a sharded model must take the same number of steps. A process that would take a step less repeats
    its last unit (or the first of all, where it has none), and that result is not kept.

    >>> [share_of([4, 5, 7], rank, 2) for rank in range(2)]
    [[(4, True), (7, True)], [(5, True), (5, False)]]
    """
    own = [(number, True) for number in left[rank::world]]
    if left and len(own) < math.ceil(len(left) / world):
        own.append((own[-1][0] if own else left[0], False))
    return own
