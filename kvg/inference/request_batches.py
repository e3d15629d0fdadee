"""Batches of requests with a fixed size and a checksum, and a selection of requests to repeat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from kvg.errors import DataError
from kvg.inference.request import Request


def in_batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Cuts requests into lists of ``size``, in their order; the last may be shorter."""
    stream = iter(requests)
    while batch := list(islice(stream, size)):
        yield batch


def mark_of(batch: Sequence[Request], settings: str) -> str:
    """A checksum of everything that determines the answers to a batch.

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
class FixedBatches:
    """Batches of ``size`` requests; see ``kvg.inference.request.RequestBatches``.

    Attributes:
        requests: all requests; can be iterated repeatedly.
        size: requests per batch; the last batch may be shorter.
        settings: of the model that answers.
        marks: checksum of each batch, see ``mark_of``.
        two_turns: whether the requests have a second turn.
    """

    requests: Iterable[Request]
    size: int
    settings: str
    marks: Sequence[str]
    two_turns: bool = False

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[Request | DataError]]]:
        """See ``RequestBatches.read``."""
        wanted = iter(numbers)
        due = next(wanted, None)
        for number, batch in enumerate(in_batches(self.requests, self.size)):
            if due is None:
                return
            if number != due:
                continue
            if mark_of(batch, self.settings) != self.marks[number]:
                raise DataError(batch[0].key, "requests", "changed during the run; run it again")
            yield number, batch
            due = next(wanted, None)


@dataclass(frozen=True)
class Again:
    """A selection of requests, each with its own number of answers.

    Attributes:
        requests: all requests.
        missing: number of missing answers by index in ``requests``.
    """

    requests: Iterable[Request]
    missing: Mapping[int, int]

    def __len__(self) -> int:
        """Number of selected requests."""
        return len(self.missing)

    def __iter__(self) -> Iterator[Request]:
        """The selected requests in order."""
        for index, request in enumerate(self.requests):
            if index in self.missing:
                yield replace(request, num=self.missing[index])
