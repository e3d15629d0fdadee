"""Requests, answers and outcomes of inference, and the base class of clients."""

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
        key: name in messages; unique in its run.
        text: the user's turn.
        image: an encoded JPEG or PNG.
        num: number of requested completions.
        second_turn: the user's second turn, after the model's first answer; '' for a conversation of one turn. Such a
            request has one completion, that of the second turn.
        keep_truncated: whether truncated answers are valid, as in an evaluation. A backbone in this process always
            keeps them.
        sample: the record of the picture, for a consistency check; None for none.
        start: given start of the answer, which the model continues; the completions do not repeat it. Only a backbone
            in this process takes one.
    """

    key: str
    text: str
    image: bytes
    num: int = 1
    second_turn: str = ""
    keep_truncated: bool = False
    sample: Sample | None = None
    start: str = ""

    def fault(self, error: DataError) -> DataError:
        """The error to report for an unusable picture or text."""
        return error


@dataclass(frozen=True)
class Answers:
    """A model's answers to one request.

    Attributes:
        completions: at most ``request.num``.
        first_turn: the answer to the first of two turns; None with one turn.
        fault: reason for a missing completion; '' otherwise.
    """

    completions: tuple[Completion, ...]
    first_turn: str | None = None
    fault: str = ""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result of a request.

    Attributes:
        request: the request.
        values: validated values, at most ``request.num``.
        faults: reasons for invalid or missing answers, in order.
        completions: the valid answers, in the order of ``values``.
        first_turn: the answer to the first of two turns; None with one turn.
    """

    request: Request
    values: tuple[T, ...]
    faults: tuple[str, ...] = ()
    completions: tuple[Completion, ...] = ()
    first_turn: str | None = None

    @property
    def complete(self) -> bool:
        """Whether there are as many valid answers as requested."""
        return len(self.values) == self.request.num


class RequestBatches(Protocol):
    """Requests in numbered batches, equal in every process. Picklable."""

    @property
    def two_turns(self) -> bool:
        """Whether the requests have a second turn."""

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[Request | DataError]]]:
        """Yields number and requests of batches in ascending order; an unusable request is replaced by its error.

        Raises:
            DataError: the requests have changed since the batches were counted.
        """


class Client(ABC):
    """A model that answers. Settings such as the temperature are its own."""

    @abstractmethod
    def ask(
        self, requests: Iterable[Request], validator: Validator[T], work: Path, max_attempts: int = 1
    ) -> Iterator[Outcome[T]]:
        """Answers requests, many concurrently.

        Args:
            requests: can be iterated repeatedly with equal results; only a few are held in memory.
            validator: converts an answer's text to a value; raises ``DataError`` for an invalid answer.
            work: folder that stores answers, so that an interrupted run does not repeat them.
            max_attempts: largest number of attempts per answer.

        Yields:
            One outcome per request, in order. The outcome of a failed request (an unreadable picture, no valid answer)
            has faults.

        Raises:
            DataError: no further request can be answered (the server is down); existing answers are kept.
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
        """Text that identifies all settings that determine the answers."""
