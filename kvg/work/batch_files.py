"""Work in numbered batches of a fixed size: which process does which, and what came of each, a file a batch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvg.records import own_record
from kvg.work.pieces import write_whole, writing

Record = dict[str, Any]  # what is known of one question


@dataclass(frozen=True)
class BatchFiles:
    """What came of some batches, a file a batch. A file counts only where its mark is the one that is due.

    Attributes:
        folder: of the files.
        marks: of all batches, in order: a checksum of all that their results depend on.
        sizes: records in each.
    """

    folder: Path
    marks: Sequence[str]
    sizes: Sequence[int]

    def missing(self) -> list[int]:
        """Numbers of the batches that are not done yet."""
        return [number for number in range(len(self.marks)) if self._read(number) is None]

    def save(self, number: int, records: Sequence[Record]) -> None:
        """Keeps what came of a batch.

        Raises:
            DataError: the disk refuses.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(number), json.dumps({"mark": self.marks[number], "records": list(records)}))

    def records(self) -> Iterator[Record]:
        """All records, in order; every batch has to be done."""
        for number in range(len(self.marks)):
            found = self._read(number)
            if found is None:
                raise RuntimeError(f"batch {number} in {self.folder} has not been answered")
            yield from found

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _read(self, number: int) -> list[Record] | None:
        found = own_record(self._path(number))
        records = found.get("records")
        return records if isinstance(records, list) and found.get("mark") == self.marks[number] else None


def share_of(todo: Sequence[int], rank: int, world: int) -> list[tuple[int, bool]]:
    """The batches of one process, each with whether its results are due.

    Processes of a sharded model must take the same number of steps, so one that would take a step less repeats its
    last batch (or the first of all, where it has none) for nothing.

    >>> [share_of([4, 5, 7], rank, 2) for rank in range(2)]
    [[(4, True), (7, True)], [(5, True), (5, False)]]
    """
    own = [(number, True) for number in todo[rank::world]]
    if todo and len(own) < math.ceil(len(todo) / world):
        own.append((own[-1][0] if own else todo[0], False))
    return own
