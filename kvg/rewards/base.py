"""What a reward is: a number for each completion, from its text, its sample and the backbone's box convention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.types import Sample


class Reward(ABC):
    """A small setting object that scores completions. It keeps no state between calls and never raises on model text.

    New rewards are subclasses, named by ``class_path`` in a config; no registry has to be edited.
    """

    @abstractmethod
    def __call__(
        self, texts: Sequence[str], samples: Sequence[Sample], codec: BoxCodec, sizes: Sequence[ImageSize]
    ) -> Tensor:
        """Scores completions.

        Args:
            texts: N completions, with or without special tokens.
            samples: the N samples they answer; the rows of one group repeat their sample.
            codec: box convention of the policy's backbone.
            sizes: sizes of the N images.

        Returns:
            ``[N]`` float32 on the CPU.

        Raises:
            ValueError: the three lists differ in length.
        """


def check_lengths(texts: Sequence[str], samples: Sequence[Sample], sizes: Sequence[ImageSize]) -> None:
    """Refuses lists of different length, which would pair completions with foreign samples.

    Raises:
        ValueError: they differ.
    """
    if not len(texts) == len(samples) == len(sizes):
        raise ValueError(f"one sample and one size per text, got {len(texts)}, {len(samples)} and {len(sizes)}")
