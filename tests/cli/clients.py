"""Clients that answer from a script; named by class_path, as a user names a server."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kvg.errors import DataError
from kvg.inference.request import Client, Outcome, Request, Validator


class Parrot(Client):
    """Gives these answers, in turns, to every request."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers

    def ask(
        self, requests: Iterable[Request], validator: Validator, work: Path, max_attempts: int = 1
    ) -> Iterator[Outcome]:
        for request in requests:
            values = [validator(request, self.answers[n % len(self.answers)]) for n in range(request.num)]
            yield Outcome(request, tuple(values))

    def summary(self) -> str:
        return "parroted"

    def identity(self) -> str:
        return "a script"


class Connoisseur(Client):
    """Knows what is on some pictures, by their very bytes; guesses on all others, and says so oddly now and then.

    Args:
        known: name of the entity by SHA-256 of the picture that is shown.
        seed: of the guesses.
        mumbles: share of the guesses that name no option.
        fails: part of a request's key that is never answered.
    """

    def __init__(self, known: Mapping[str, str], seed: int = 0, mumbles: float = 0.0, fails: str = "") -> None:
        self.known, self.seed, self.mumbles, self.fails = known, seed, mumbles, fails
        self.shown: list[Request] = []

    def ask(
        self, requests: Iterable[Request], validator: Validator, work: Path, max_attempts: int = 1
    ) -> Iterator[Outcome]:
        for request in requests:
            self.shown.append(request)
            if self.fails and self.fails in request.key:
                yield Outcome(request, (), ("was cut off",))
                continue
            try:
                yield Outcome(request, (validator(request, self._answer(request)),))
            except DataError as error:
                yield Outcome(request, (), (str(error),))

    def _answer(self, request: Request) -> str:
        options = [line for line in request.text.splitlines() if line[1:3] == ". "]
        name = self.known.get(hashlib.sha256(request.image).hexdigest())
        if name is not None:
            return next(line for line in options if line[3:] == name)[0]
        rng = random.Random(f"{self.seed}/{request.key}")
        return "hard to say" if rng.random() < self.mumbles else f"({rng.choice(options)[0]})"

    def summary(self) -> str:
        return f"{len(self.shown)} answers"

    def identity(self) -> str:
        return "a script"
