"""Requests in batches of a fixed size, and the answers to them, a file a batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from kvg.asking.request import Request
from kvg.pieces import write_whole, writing

Record = dict[str, Any]  # of a request: its texts, their tokens, and whether they were cut off; or why there are none


def in_batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Cuts requests into lists of ``size``, in their order; the last may be shorter."""
    stream = iter(requests)
    while batch := list(islice(stream, size)):
        yield batch


def mark_of(batch: Sequence[Request], settings: str) -> str:
    """A checksum of all that the answers to a batch depend on.

    Args:
        batch: with its pictures.
        settings: of the model that answers.
    """
    digest = hashlib.sha256(settings.encode("utf-8", "surrogateescape"))
    for request in batch:
        digest.update(json.dumps([request.key, request.text, request.num, len(request.image)]).encode("ascii"))
        digest.update(request.image)
    return digest.hexdigest()


@dataclass(frozen=True)
class Again:
    """Some requests of many, each with its own number of answers.

    Attributes:
        requests: all.
        missing: answers that are wanted, by the place among ``requests``.
    """

    requests: Iterable[Request]
    missing: Mapping[int, int]

    def __iter__(self) -> Iterator[Request]:
        """In their order."""
        for index, request in enumerate(self.requests):
            if index in self.missing:
                yield replace(request, num=self.missing[index])


@dataclass(frozen=True)
class AnswerFiles:
    """The answers to some requests, a file a batch. A file counts only where its mark is the one that is due.

    Attributes:
        folder: of the files.
        marks: of all batches, in order.
        sizes: requests in each.
    """

    folder: Path
    marks: Sequence[str]
    sizes: Sequence[int]

    def missing(self) -> list[int]:
        """Numbers of the batches that are not answered yet."""
        return [number for number in range(len(self.marks)) if self._read(number) is None]

    def save(self, number: int, records: Sequence[Record]) -> None:
        """Keeps the answers to a batch.

        Raises:
            DataError: the disk refuses.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(number), json.dumps({"mark": self.marks[number], "records": list(records)}))

    def records(self) -> Iterator[Record]:
        """What is known of each request, in order; every batch has to be answered."""
        for number in range(len(self.marks)):
            found = self._read(number)
            if found is None:
                raise RuntimeError(f"batch {number} in {self.folder} has not been answered")
            yield from found

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _read(self, number: int) -> list[Record] | None:
        try:
            found = json.loads(self._path(number).read_text("ascii"))
        except (OSError, ValueError):
            return None
        return list(found["records"]) if found["mark"] == self.marks[number] else None
