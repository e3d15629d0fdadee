"""Settings of the rules for a teacher's rationales."""

from __future__ import annotations

from dataclasses import dataclass

from kvg.errors import ConfigError


@dataclass(frozen=True)
class RationaleRules:
    """Rules for rationales.

    Attributes:
        min_iou: minimum IoU of a quoted box with its object, which is the one with the largest IoU.
        min_words: minimum number of words.
        max_words: maximum number of words.
        all_boxes: whether the boxes of all objects must be quoted, not only that of the target.
    """

    min_iou: float = 0.5
    min_words: int = 20
    max_words: int = 600
    all_boxes: bool = False

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if not 0 < self.min_iou <= 1:
            raise ConfigError("rationalize.rules.min_iou", f"{self.min_iou} is not within 0-1")
        if not 0 <= self.min_words < self.max_words:
            numbers = f"{self.min_words} to {self.max_words}"
            raise ConfigError("rationalize.rules.min_words, max_words", f"{numbers} is not a range")
