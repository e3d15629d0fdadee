"""Answers of several models to one question at once, as they are written."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kvg.errors import KVGError
from kvg.pipeline.grounder import Grounder
from kvg.pipeline.grounding import Grounding

log = logging.getLogger(__name__)

_INTERVAL: Final = 0.1  # seconds between two states, at least


@dataclass(frozen=True)
class State:
    """How far a model has come.

    Attributes:
        text: what it has written, without special tokens.
        grounding: its answer; None as long as it writes, and after a fault.
        fault: why there is no answer; '' if nothing is wrong.
    """

    text: str = ""
    grounding: Grounding | None = None
    fault: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes."""
        return self.grounding is not None or bool(self.fault)


class _Cancelled(Exception):  # no error: it ends the sampling of a text that nobody waits for
    pass


class Answering:
    """Asks several models one question at a time; a new question ends the one before.

    Args:
        grounders: the models by name.

    Attributes:
        grounders: the same.
    """

    def __init__(self, grounders: Mapping[str, Grounder]) -> None:
        self.grounders = grounders
        self._owner: object = None
        self._cancelled = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask(self, picture: bytes, entity: str, owner: object = None) -> Iterator[list[State]]:
        """Yields the states of all models, until all are final. Closing the generator ends the sampling.

        Args:
            picture: bytes of a file.
            entity: a name.
            owner: whose question it is, see ``cancel``.
        """
        self.end()
        self._owner, self._cancelled = owner, threading.Event()
        events = queue.SimpleQueue[tuple[int, State]]()
        states = [State() for _ in self.grounders]
        models = enumerate(self.grounders.values())
        args = [(number, grounder, picture, entity, events, self._cancelled) for number, grounder in models]
        self._threads = [threading.Thread(target=self._answer, args=one, daemon=True) for one in args]
        for thread in self._threads:
            thread.start()
        try:
            while not all(state.is_final for state in states):
                number, states[number] = events.get()
                time.sleep(_INTERVAL)
                while not events.empty():
                    number, states[number] = events.get()
                yield list(states)
        finally:
            self.end()

    def cancel(self, owner: object = None) -> None:
        """Ends the question that is being answered if it is this owner's."""
        if owner == self._owner:
            self.end()

    def end(self) -> None:
        """Ends the question that is being answered, and waits until the models stand still."""
        self._cancelled.set()
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _answer(
        number: int,
        grounder: Grounder,
        picture: bytes,
        entity: str,
        events: queue.SimpleQueue[tuple[int, State]],
        cancelled: threading.Event,
    ) -> None:
        text = ""

        def on_text(more: str) -> None:
            nonlocal text
            if cancelled.is_set():
                raise _Cancelled
            text += more
            events.put((number, State(text)))

        try:
            grounding = grounder.ground(picture, entity, on_text)
            events.put((number, State(text, grounding)))
        except _Cancelled:
            events.put((number, State(text, fault="stopped")))
        except KVGError as error:
            events.put((number, State(text, fault=str(error))))
        except Exception as error:  # the page would wait for ever for a thread that has ended
            log.exception("no answer")
            events.put((number, State(text, fault=f"{type(error).__name__}: {error}")))
