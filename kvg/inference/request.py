"""What is asked, what comes back, and what everybody who answers has to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
Judge = Callable[["Request", str], T]


@dataclass(frozen=True)
class Request:
    """One question about one picture.

    Attributes:
        key: names it in messages; unique in its run.
        text: what is asked.
        image: an encoded JPEG or PNG.
        num: answers that are wanted.
    """

    key: str
    text: str
    image: bytes
    num: int = 1


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a request.

    Attributes:
        request: that was put.
        values: what the judge made of good answers, at most ``request.num``.
        faults: why others were not good, or why there was none; in the order of their coming.
    """

    request: Request
    values: tuple[T, ...]
    faults: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether as many answers are good as were wanted."""
        return len(self.values) == self.request.num


class Asker(Protocol):
    """A model that answers. Settings such as the temperature are its own."""

    def ask(self, requests: Iterable[Request], judge: Judge[T], work: Path, tries: int = 1) -> Iterator[Outcome[T]]:
        """Puts requests, many at a time.

        Args:
            requests: can be gone through again and again, and gives the same each time; few are held at a time.
            judge: makes a value of an answer's text; raises ``DataError`` where it cannot be used.
            work: folder that keeps what has been answered: after an interruption nothing is asked twice.
            tries: an answer that is not good is asked for again until it has been asked for so often.

        Yields:
            One outcome a request, in their order. A request that fails alone (a picture that cannot be read, an answer
            that is never good) is an outcome with faults.

        Raises:
            DataError: nothing more can be answered (the server has gone); what has been is kept.
        """

    def summary(self) -> str:
        """What it took, in plain words: answers, tokens, time, cost."""
