"""What a batch is made of: which half of a sample is tokenised, and how much text is mixed in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvg.errors import ConfigError, DataError
from kvg.text.prompts import PROMPTS
from kvg.types import Batch, Example, Processor, Sample


class TextProcessor(Processor, Protocol):
    """A processor that can also tokenise text without an image."""

    def encode_text(self, asked: str | None, completion: str) -> Example:
        """Tokenises a question and its answer, or running text where nothing was asked."""


@dataclass(frozen=True)
class Recipe:
    """How samples become a batch.

    Attributes:
        batch_size: examples in a batch, replayed text included.
        mode: prompt mode.
        target: ``rationale``, ``answer``, or None for prompts only.
        pad_left: for prompts that will be continued.
        max_tokens: longer samples are passed over, never cut, since a cut may hit the image's tokens; None = no limit.
        replay_ratio: share of examples that are replayed text.
    """

    batch_size: int
    mode: str = "think"
    target: str | None = None
    pad_left: bool = False
    max_tokens: int | None = None
    replay_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting cannot work.
        """
        if self.batch_size < 1:
            raise ConfigError("data.batch_size", f"{self.batch_size} must be at least 1")
        if self.mode not in PROMPTS:
            raise ConfigError("data.mode", f"'{self.mode}' is not one of {', '.join(PROMPTS)}")
        if self.target not in ("rationale", "answer", None):
            raise ConfigError("data.target", f"'{self.target}' is neither rationale nor answer")
        if not 0 <= self.replay_ratio < 1:
            raise ConfigError("data.replay_ratio", f"{self.replay_ratio} must be at least 0 and below 1")
        if self.replay_ratio and self.batch_size < 2:
            raise ConfigError("data.batch_size", "must be at least 2 where text is replayed beside images")

    def num_texts(self, index: int) -> int:
        """Replayed examples in batch ``index``: spread evenly, and never the whole batch.

        >>> [Recipe(4, replay_ratio=0.125).num_texts(i) for i in range(4)]
        [0, 1, 0, 1]
        """
        share = self.batch_size * self.replay_ratio
        return min(int((index + 1) * share + 1e-9) - int(index * share + 1e-9), self.batch_size - 1)

    def encode(self, processor: Processor, sample: Sample) -> Example:
        """Tokenises one sample.

        Raises:
            DataError: it cannot be used.
        """
        example = processor.encode(sample, mode=self.mode, target=self.target)
        length = len(example["input_ids"])
        if self.max_tokens is not None and length > self.max_tokens:
            raise DataError(sample.key, "tokens", f"{length} exceed max_tokens={self.max_tokens}; raise it")
        return example

    def collate(self, processor: Processor, examples: list[Example], samples: list[Sample]) -> Batch:
        """Pads examples to a batch; ``samples`` belong to the first of them."""
        return processor.collate(examples, samples, pad_left=self.pad_left)


@dataclass(frozen=True)
class ReplayText:
    """One line of a replay file."""

    prompt: str | None
    completion: str


def load_replay(path: str | Path) -> list[ReplayText]:
    """Reads a file of text-only examples: ``{"text": ...}`` or ``{"prompt": ..., "completion": ...}`` a line.

    Raises:
        DataError: the file is missing or empty, or a line is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(str(path), "replay", "does not exist; correct the path")
    texts = list(_lines(path))
    if not texts:
        raise DataError(str(path), "replay", "holds no line; write some, or set replay to null")
    return texts


def _lines(path: Path) -> Iterator[ReplayText]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield ReplayText(None, row["text"]) if "text" in row else ReplayText(row["prompt"], row["completion"])
        except (ValueError, TypeError, KeyError) as error:
            remedy = f"{error!r}; write {{'text'}} or {{'prompt', 'completion'}} as JSON"
            raise DataError(f"{path} line {number}", "replay", remedy) from error
