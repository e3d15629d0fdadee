"""The prediction files of a run: one file per batch while it runs, one file when all questions are answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kvg.records import own_record
from kvg.runs.folder import PREDICTIONS
from kvg.shards.revision import revision
from kvg.work.files import atomic_write, disk_errors
from kvg.work.job import Job, digest

RECORD: Final = "predictions.json"
_VERSION: Final = 1  # increased when the same settings give different lines
_MAX_REASONS: Final = 20


class Predictions:
    """``predictions.jsonl`` of a run, its metadata ``predictions.json``, and the units of the unfinished job.

    ``predictions.json`` is written last: its identity confirms that ``predictions.jsonl`` is complete and was made with
    these settings.

    Args:
        folder: of the run.
        settings: everything that determines the answers, as JSON data.
        sizes: number of questions in each batch.
        origin: further metadata that does not affect the answers, such as paths of sets and weights.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], sizes: Sequence[int], origin: Mapping[str, Any]
    ) -> None:
        self.folder, self.settings, self.origin = folder, settings, origin
        text = json.dumps([_VERSION, settings], sort_keys=True)
        self.job = Job(folder, RECORD, text, [f"{digest(text)}/{number}" for number in range(len(sizes))])

    @property
    def path(self) -> Path:
        """Path of ``predictions.jsonl``."""
        return self.folder / PREDICTIONS

    @property
    def finished(self) -> bool:
        """Whether all questions have been answered with exactly these settings."""
        return self.job.is_complete(self.path)

    @property
    def num_bad(self) -> int:
        """Number of skipped questions, from ``predictions.json``."""
        num = self._record().get("num_bad")
        return num if isinstance(num, int) else 0

    def missing(self) -> list[int]:
        """Numbers of the batches that are not answered yet."""
        return [] if self.finished else self.job.left()

    def write(self, num_bad: int, problems: Iterable[str]) -> dict[str, Any]:
        """Writes both files from all batches, and removes the batch files.

        Args:
            num_bad: number of questions that were skipped before inference.
            problems: the first reasons.

        Returns:
            The content of ``predictions.json``.

        Raises:
            DataError: a file cannot be written.
        """
        lines, reasons, seconds, num_unanswered = [], list(problems), 0.0, 0
        num_no_box = 0
        for record in (record for batch in self.job.results() for record in batch):
            seconds += record["seconds"]
            if "fault" in record:
                num_bad += 1
                reasons.append(record["fault"])
            else:
                num_unanswered += "fault" in record["line"]
                num_no_box += "options" not in record["line"] and record["line"].get("gt_bbox") is None
                lines.append(json.dumps(record["line"], ensure_ascii=False) + "\n")
        content = {
            "num_cases": len(lines),
            "num_bad": num_bad,
            "num_unanswered": num_unanswered,
            "num_no_true_box": num_no_box,
            "bad": reasons[:_MAX_REASONS],
            "seconds": round(seconds, 1),
            "revision": revision(),
            **self.origin,
            "settings": self.settings,
        }
        with disk_errors(self.folder):
            atomic_write(self.path, "".join(lines))
        return self.job.complete(content)

    def _record(self) -> dict[str, Any]:
        return own_record(self.job.record)
