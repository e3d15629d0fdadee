"""Given starts of answers: the model continues them instead of beginning its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvg.types import Box

CaseKey = tuple[str, str, int]  # key, artifact, strength


@dataclass(frozen=True)
class ForcedStart:
    """The given start of one answer.

    Attributes:
        text: start of the answer; '' if the change cannot be applied, and the model answers freely.
        other: index of the object that the change points at; None if it points at none.
        before: the box that was answered without the change, on the 0-1000 grid; None if there was none.
    """

    text: str
    other: int | None
    before: Box | None

    def record(self, kind: str) -> dict[str, Any]:
        """Returns the field ``intervention`` of a prediction line."""
        before = None if self.before is None else list(self.before)
        return {"kind": kind, "start": self.text, "other": self.other, "before": before}


@dataclass(frozen=True)
class ForcedStarts:
    """The given starts of a run.

    Attributes:
        kind: what was changed.
        identity: text that identifies the answers that they were made of.
        by_case: start of each case.
    """

    kind: str
    identity: str
    by_case: Mapping[CaseKey, ForcedStart]
