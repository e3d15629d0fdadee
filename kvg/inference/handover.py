"""Hands outcomes over in order while later requests are still being answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvg.inference.request import Outcome
from kvg.work.job import Units

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


class Handover(Generic[T]):
    """Calls a function with each outcome as soon as its batch and all earlier ones are answered.

    Args:
        outcomes: makes the outcomes, in order, of units; reads a unit when its first outcome is taken.
        each: the function.
    """

    def __init__(
        self, outcomes: Callable[[Units], Iterator[tuple[Outcome[T], Any]]], each: Callable[[Outcome[T]], object]
    ) -> None:
        self._outcomes, self._each = outcomes, each

    def begin(self, units: Units, sizes: Sequence[int], progress: Progress) -> Callable[[], None]:
        """Hands over what an earlier run has answered.

        Args:
            units: one for each batch.
            sizes: number of requests in each batch.
            progress: gets a bar for earlier answers.

        Returns:
            A function that hands over what has been answered since.
        """
        outcomes, number = self._outcomes(units), 0

        def hand_over() -> None:
            nonlocal number
            while number < len(sizes) and units.has(number):
                for outcome, _ in islice(outcomes, sizes[number]):
                    self._each(outcome)
                    progress.advance(earlier)
                number += 1

        done = set(units.done())
        first_left = next((one for one in range(len(sizes)) if one not in done), len(sizes))
        earlier = progress.add_task("writing earlier answers", total=sum(sizes[:first_left]), visible=first_left > 0)
        hand_over()
        progress.update(earlier, visible=False)
        return hand_over
