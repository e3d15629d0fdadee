"""What a reward is: a number for each completion, from what was generated and the sample that it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from kvg.text.answer import Answer
from kvg.types import Sample


class Reward(ABC):
    """A small setting object that scores completions. It keeps no state between calls and never raises on model text.

    New rewards are subclasses, named by ``class_path`` in a config; no registry has to be edited.
    """

    @abstractmethod
    def __call__(self, answers: Sequence[Answer], samples: Sequence[Sample]) -> Tensor:
        """Scores completions.

        Args:
            answers: N completions as they were read, each with its text, length, parts and box.
            samples: the N samples they answer; the rows of one group repeat their sample.

        Returns:
            ``[N]`` float32 on the CPU.

        Raises:
            ValueError: the lists differ in length.
        """

    def check_limit(self, max_new_tokens: int) -> None:  # noqa: B027  # empty on purpose
        """Refuses settings that do not fit the longest completion; most rewards have none.

        Raises:
            ConfigError: they do not.
        """


def check_lengths(answers: Sequence[Answer], samples: Sequence[Sample]) -> None:
    """Refuses lists of different length, which would pair completions with foreign samples.

    Raises:
        ValueError: they differ.
    """
    if len(answers) != len(samples):
        raise ValueError(f"one sample per answer, got {len(samples)} for {len(answers)}")
