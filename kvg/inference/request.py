"""The records of inference: what is asked, what comes back, and what every client offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from kvg.errors import DataError
from kvg.text.prompts import PUBLISHED, PromptFormat
from kvg.types import Completion, Sample

T = TypeVar("T")
Validator = Callable[["Request", str], T]


@dataclass(frozen=True)
class Request:
    """One question about one picture.

    Attributes:
        key: names it in messages; unique in its run.
        text: the user's turn.
        image: an encoded JPEG or PNG.
        num: number of completions that are wanted.
        second_turn: what the user says after the model's first answer; '' for a conversation of one turn. Such a
            request has one completion, that of the second turn.
        keep_truncated: whether an answer that was cut off at its longest length counts, as it does in a measurement. A
            backbone of this process keeps them in any case.
        sample: the record of the picture, which is checked against it; None where there is none.
    """

    key: str
    text: str
    image: bytes
    num: int = 1
    second_turn: str = ""
    keep_truncated: bool = False
    sample: Sample | None = None

    def fault(self, error: DataError) -> DataError:
        """The error as it is reported, for a picture or a text that cannot be used."""
        return error


@dataclass(frozen=True)
class Answers:
    """What a model answered to one request.

    Attributes:
        completions: at most ``request.num``.
        first_turn: its answer to the first of two turns; None where there was one turn.
        fault: why there is no completion; '' where there is one.
    """

    completions: tuple[Completion, ...]
    first_turn: str | None = None
    fault: str = ""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a request.

    Attributes:
        request: that was put.
        values: what the validator made of good answers, at most ``request.num``.
        faults: why others were not good, or why there was none; in the order of their coming.
        completions: the good answers themselves, in the order of ``values``.
        first_turn: the answer to the first of two turns; None where there was one turn.
    """

    request: Request
    values: tuple[T, ...]
    faults: tuple[str, ...] = ()
    completions: tuple[Completion, ...] = ()
    first_turn: str | None = None

    @property
    def complete(self) -> bool:
        """Whether as many answers are good as were wanted."""
        return len(self.values) == self.request.num


class RequestBatches(Protocol):
    """Requests in numbered batches, the same in every process. Picklable."""

    @property
    def two_turns(self) -> bool:
        """Whether the requests have a second turn."""

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[Request | DataError]]]:
        """Some of the batches, whose numbers rise: with each its requests, or why one cannot be made.

        Raises:
            DataError: the requests are not those that they were when the batches were counted.
        """


class Client(ABC):
    """A model that answers. Settings such as the temperature are its own."""

    @abstractmethod
    def ask(
        self, requests: Iterable[Request], validator: Validator[T], work: Path, max_attempts: int = 1
    ) -> Iterator[Outcome[T]]:
        """Puts requests, many at a time.

        Args:
            requests: can be gone through again and again, and gives the same each time; few are held at a time.
            validator: makes a value of an answer's text; raises ``DataError`` where it cannot be used.
            work: folder that keeps what has been answered: after an interruption nothing is asked twice.
            max_attempts: an answer that is not good is asked for again until it has been asked for so often.

        Yields:
            One outcome a request, in their order. A request that fails alone (a picture that cannot be read, an answer
            that is never good) is an outcome with faults.

        Raises:
            DataError: nothing more can be answered (the server has gone); what has been is kept.
        """

    @property
    def prompt_format(self) -> PromptFormat:
        """How the names in a question are marked; the published marks, unless the client knows its model's family."""
        return PUBLISHED

    @abstractmethod
    def summary(self) -> str:
        """Usage in one line: answers, tokens, time, cost."""

    @abstractmethod
    def identity(self) -> str:
        """Text that changes when answers would."""
