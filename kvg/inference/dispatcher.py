"""Sends requests concurrently and returns their outcomes in order."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kvg.errors import DataError
from kvg.inference.cache import AnswerCache
from kvg.inference.http_call import Call, Refused, Reply
from kvg.inference.http_worker import HTTPWorker, Ticket
from kvg.inference.request import Outcome, Request, Validator
from kvg.inference.usage import Usage
from kvg.shards.schema import image_extension
from kvg.types import Completion

T = TypeVar("T")
CallOf = Callable[[Request, str, int, int, str | None], Call]
_CONTROL_TOKEN = re.compile(r"<\|[^<>|]*\|>")


@dataclass
class _Open(Generic[T]):
    """An open request.

    Attributes:
        number: of the request.
        request: itself.
        image_sha256: of its image.
        waiting: answers that are still to come.
        values: of good ones, with the answers themselves, by their numbers.
        faults: of the others, by their try and number.
        first_turn: the answer to the first of two turns, once it has come.
    """

    number: int
    request: Request
    image_sha256: str = ""
    waiting: int = 0
    values: dict[int, tuple[T, Completion]] = field(default_factory=dict)
    faults: dict[tuple[int, int], str] = field(default_factory=dict)
    first_turn: str | None = None

    def outcome(self) -> Outcome[T]:
        """The outcome, independent of the order in which answers arrived."""
        good = [self.values[answer] for answer in sorted(self.values)]
        faults = tuple(self.faults[at] for at in sorted(self.faults))
        values, completions = tuple(value for value, _ in good), tuple(one for _, one in good)
        return Outcome(self.request, values, faults, completions, self.first_turn)


class Dispatcher(Generic[T]):
    """Submits requests to a worker, validates the answers, and repeats requests whose answers are invalid.

    Args:
        line: that makes the calls.
        cache: of the answers.
        tally: counts.
        call_of: makes a call of a request, the SHA-256 of its image, the number of the try, that of the answer, and the
            answer to the first turn where the second is due.
        validator: see ``Client.ask``.
        max_attempts: see there.
        room: requests that are held at a time.
    """

    def __init__(
        self,
        line: HTTPWorker,
        cache: AnswerCache,
        tally: Usage,
        call_of: CallOf,
        validator: Validator[T],
        max_attempts: int,
        room: int,
    ) -> None:
        self._line, self._cache, self._tally = line, cache, tally
        self._call_of, self._validator, self._max_attempts, self._room = call_of, validator, max_attempts, room
        self._open: dict[int, _Open[T]] = {}

    def outcomes(self, requests: Iterable[Request]) -> Iterator[Outcome[T]]:
        """Outcomes in the order of the requests.

        Raises:
            DataError: nothing more can be answered.
        """
        source, more = enumerate(requests), True
        window: deque[_Open[T]] = deque()
        while True:
            # Read one, yield one: the server stays busy even if the source or the consumer is slow.
            if more and len(window) < self._room:
                upcoming = next(source, None)
                more = upcoming is not None
                if upcoming is not None:
                    window.append(self._admit(*upcoming))
            wait = not (more and len(window) < self._room) and bool(window) and window[0].waiting > 0
            for ticket, result in self._line.results(wait):
                self._take(ticket, result)
            if window and not window[0].waiting:
                entry = window.popleft()
                del self._open[entry.number]
                yield entry.outcome()
            elif not window and not more:
                return

    def _admit(self, number: int, request: Request) -> _Open[T]:
        self._tally.requests += 1
        entry: _Open[T] = _Open(number, request)
        self._open[number] = entry
        try:
            image_extension(request.image, request.key)
        except DataError as error:
            entry.faults[0, 0] = str(error)
            return entry
        entry.image_sha256 = hashlib.sha256(request.image).hexdigest()
        entry.waiting = request.num
        for answer in range(request.num):
            self._ask(entry, 0, answer)
        return entry

    def _take(self, ticket: Ticket, result: Reply | Exception) -> None:
        number, tried, answer = ticket
        entry = self._open[number]
        if isinstance(result, Refused):
            entry.faults[tried, answer] = result.words
            if result.final:
                entry.waiting -= 1
            else:
                self._ask(entry, tried + 1, answer)
        elif isinstance(result, Exception):
            raise result
        elif not self._good(entry, tried, answer, result):
            self._ask(entry, tried + 1, answer)

    def _ask(self, entry: _Open[T], tried: int, answer: int) -> None:
        """Sends a request, starting with this attempt; uses cached answers first."""
        for at in range(tried, self._max_attempts):
            call = self._call_of(entry.request, entry.image_sha256, at, answer, entry.first_turn)
            reply = self._cache.get(call.key)
            if reply is None:
                self._line.submit((entry.number, at, answer), call)
                return
            self._tally.cached += 1
            if self._good(entry, at, answer, reply):
                return
        entry.waiting -= 1

    def _good(self, entry: _Open[T], tried: int, answer: int, reply: Reply) -> bool:
        if entry.request.second_turn and entry.first_turn is None:
            # Control tokens are removed, because a server would interpret them as part of the conversation.
            entry.first_turn = _CONTROL_TOKEN.sub("", reply.text).strip()
            self._ask(entry, tried, answer)
            return True
        if reply.cut and not entry.request.keep_truncated:
            after = f" after {reply.completion_tokens} tokens" if reply.completion_tokens is not None else ""
            entry.faults[tried, answer] = f"was truncated{after}; raise max_tokens"
            return False
        try:
            value = self._validator(entry.request, reply.text)
        except DataError as error:
            entry.faults[tried, answer] = str(error)
            return False
        entry.values[answer] = value, _completion(reply)
        entry.waiting -= 1
        return True


def _completion(reply: Reply) -> Completion:
    return Completion(reply.text, reply.completion_tokens, "length" if reply.cut else "stop")
