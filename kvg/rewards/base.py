"""Base class of rewards: one number per completion, computed from the completion and its sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from kvg.text.answer import Answer
from kvg.types import Sample


class Reward(ABC):
    """Scores completions. A reward keeps no state between calls and never raises an error because of model text.

    New rewards are subclasses that a config names by ``class_path``; there is no registry.
    """

    @abstractmethod
    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """Scores completions.

        Args:
            answers: N parsed completions, each with its text, length, parts and box.
            samples: the N samples that they answer; the rows of one group repeat their sample.

        Returns:
            ``[N]`` float32 on the CPU.

        Raises:
            ValueError: the lists differ in length.
        """

    def check_limit(self, max_new_tokens: int) -> None:  # noqa: B027  # empty on purpose
        """Checks settings against the longest completion; most rewards have no such settings.

        Raises:
            ConfigError: a setting does not fit.
        """


def check_lengths(answers: Sequence[Answer], samples: Sequence[Sample]) -> None:
    """Checks that there is one sample per answer.

    Raises:
        ValueError: the lengths differ.
    """
    if len(answers) != len(samples):
        raise ValueError(f"expected one sample per answer, got {len(samples)} for {len(answers)}")
