"""The recipe of a batch: which part of a sample is tokenised, and how much text is mixed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kvg.batches import Batch, Example, Processor
from kvg.errors import ConfigError, DataError
from kvg.ranges import check_number, check_whole
from kvg.records import excerpt, json_lines, object_of, parse_json, text_of
from kvg.text.prompts import PROMPTS
from kvg.text.special_tokens import check_prompt
from kvg.types import Sample


class TextProcessor(Processor, Protocol):
    """A processor that can also tokenise text without an image."""

    def encode_text(self, question: str | None, completion: str) -> Example:
        """Tokenises a question and its answer, or plain text if ``question`` is None."""


@dataclass(frozen=True)
class Recipe:
    """How samples become a batch.

    Attributes:
        batch_size: examples in a batch, including replayed text.
        mode: prompt mode.
        target: ``rationale``, ``answer_first``, ``answer``, or None for prompts only.
        pad_left: whether to pad on the left, for generation.
        max_tokens: longer samples are skipped. They are never truncated, since that could cut off image tokens. Longer
            replayed texts raise an error at the start. None for no limit.
        replay_ratio: share of examples that are replayed text.
        pairs: whether samples are the composites of pairs, of which a batch has both next to each other.
    """

    batch_size: int
    mode: str = "think"
    target: str | None = None
    pad_left: bool = False
    max_tokens: int | None = None
    replay_ratio: float = 0.0
    pairs: bool = False

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        check_whole("data.batch_size", self.batch_size, 1)
        if self.max_tokens is not None:
            check_whole("data.max_tokens", self.max_tokens, 1)
        if self.mode not in PROMPTS:
            raise ConfigError("data.mode", f"'{self.mode}' is not one of {', '.join(PROMPTS)}")
        if self.target not in ("rationale", "answer_first", "answer", None):
            raise ConfigError("data.target", f"'{self.target}' is none of rationale, answer_first, answer")
        check_number("data.replay_ratio", self.replay_ratio, 0, 1, below=True)
        if self.replay_ratio and self.batch_size < 2:
            raise ConfigError("data.batch_size", "must be at least 2 if text is replayed")
        if self.pairs and self.batch_size % 2:
            raise ConfigError(
                "data.batch_size", f"{self.batch_size} cuts a pair (data.pairs); set it to an even number"
            )

    def num_texts(self, index: int) -> int:
        """Returns the number of replayed examples in batch ``index``: spread evenly, and never the whole batch.

        >>> [Recipe(4, replay_ratio=0.125).num_texts(i) for i in range(4)]
        [0, 1, 0, 1]
        """
        share = self.batch_size * self.replay_ratio
        return min(int((index + 1) * share + 1e-9) - int(index * share + 1e-9), self.batch_size - 1)

    def encode(self, processor: Processor, sample: Sample) -> Example:
        """Tokenises one sample.

        Raises:
            DataError: the sample cannot be tokenised, or is too long.
        """
        example = processor.encode(sample, mode=self.mode, target=self.target)
        length = len(example.input_ids)
        if self.max_tokens is not None and length > self.max_tokens:
            raise DataError(sample.key, "tokens", f"{length} exceed max_tokens={self.max_tokens}; raise it")
        return example

    def collate(self, processor: Processor, examples: list[Example], samples: list[Sample]) -> Batch:
        """Pads examples to a batch; ``samples`` belong to the first examples, replayed text has none."""
        batch = processor.collate(examples, samples, pad_left=self.pad_left)
        return replace(batch, prompts_per_group=2) if self.pairs else batch


@dataclass(frozen=True)
class ReplayText:
    """One line of a replay file.

    Attributes:
        prompt: the question; None for plain text.
        completion: text that is trained on.
        where: file and line.
    """

    prompt: str | None
    completion: str
    where: str = "replay"


def load_replay(path: str | Path) -> list[ReplayText]:
    """Reads a file of text-only examples, each line ``{"text": ...}`` or ``{"prompt": ..., "completion": ...}``.

    Raises:
        DataError: the file is missing or empty, or a line is wrong or contains a control token.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(str(path), "replay", "does not exist; correct the path")
    texts = [_replay_text(line, f"{path} line {number}") for number, line in json_lines(path)]
    if not texts:
        raise DataError(str(path), "replay", "contains no line; write some, or set replay to null")
    return texts


def check_replay(texts: Sequence[ReplayText], processor: TextProcessor, max_tokens: int | None) -> None:
    """Tokenises every replayed text once, so that a bad one cannot end a run later.

    Args:
        texts: result of ``load_replay``.
        processor: processor of the backbone.
        max_tokens: maximum length of an example; None for no limit.

    Raises:
        DataError: a text contains a control token of this backbone, or is too long.
    """
    for text in texts:
        try:
            length = len(processor.encode_text(text.prompt, text.completion).input_ids)
        except DataError as error:
            raise DataError(text.where, error.field, error.remedy) from error
        if max_tokens is not None and length > max_tokens:
            raise DataError(text.where, "tokens", f"{length} exceed max_tokens={max_tokens}; shorten it or raise that")


def _replay_text(line: str, where: str) -> ReplayText:
    row = object_of(where, "replay", parse_json(line, where))
    if "text" in row and not {"prompt", "completion"} & row.keys():
        text = ReplayText(None, _words(where, row, "text"), where)
    elif "text" not in row and {"prompt", "completion"} <= row.keys():
        text = ReplayText(_words(where, row, "prompt"), _words(where, row, "completion"), where)
    else:
        remedy = f"has {', '.join(map(excerpt, row)) or 'no field'}; write {{'text'}} or {{'prompt', 'completion'}}"
        raise DataError(where, "replay", remedy)
    return text


def _words(where: str, row: Mapping[str, Any], name: str) -> str:
    """Returns a text with its surrounding white space, which is also trained on."""
    text_of(where, row, name)
    text = str(row[name])
    check_prompt(text, where, name)
    return text
