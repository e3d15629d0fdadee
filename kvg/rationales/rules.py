"""The rules that a rationale of a teacher has to meet, as settings."""

from __future__ import annotations

from dataclasses import dataclass

from kvg.errors import ConfigError


@dataclass(frozen=True)
class RationaleRules:
    """What a rationale has to be.

    Attributes:
        min_iou: a quoted box means the object that it overlaps most, by at least this.
        min_words: shorter ones are refused.
        max_words: and longer ones.
        all_boxes: whether the box of every object has to be quoted, not only that of the target.
    """

    min_iou: float = 0.5
    min_words: int = 20
    max_words: int = 600
    all_boxes: bool = False

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        if not 0 < self.min_iou <= 1:
            raise ConfigError("rationalize.rules.min_iou", f"{self.min_iou} is not within 0-1")
        if not 0 <= self.min_words < self.max_words:
            numbers = f"{self.min_words} to {self.max_words}"
            raise ConfigError("rationalize.rules.min_words, max_words", f"{numbers} is no range")
