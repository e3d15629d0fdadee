"""Parquet files with the rollouts of stage 2: what was sampled in a step, and how it was rewarded.

``callbacks.RolloutFiles`` writes ``rollouts/step000012-rank0.parquet`` into the folder of the run: one file for each
step that is kept and each process. Columns are the attributes of ``RolloutRecord``; each component of the reward is a
column ``reward/NAME``, as in the log.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.formats.parquet import read_rows, write_rows
from kvg.runs.folder import ROLLOUTS
from kvg.types import Box

PART: Final = "reward/"  # prefix of the columns of the components
_NAME: Final = re.compile(r"step(\d{6,})-rank(\d+)\.parquet")
_NUMBERS: Final = ("reward", "advantage", "entropy")
_WHOLE: Final = ("step", "optimizer_step", "rank", "prompt", "sample", "num_tokens", "width", "height")
_TEXTS: Final = ("key", "entity", "category", "split", "image", "text", "finish_reason")
_BOXES: Final = ("box", "target")


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout. Boxes are on the 0-1000 grid of the picture.

    Attributes:
        step: number of the batch of rollouts, the horizontal axis of the learning curves; the first is 0.
        optimizer_step: number of optimizer steps before the batch was sampled.
        rank: process that sampled it.
        prompt: number of its prompt within the batch; the rollouts of a prompt are a group.
        sample: number within its group.
        key: of the sample that asks.
        entity: that the question names.
        category: of the entity.
        split: of the entity, ``seen`` or ``unseen``; '' if unknown.
        image: checksum of the picture.
        width: of the stored picture, in pixels.
        height: of the stored picture, in pixels.
        target: true box.
        text: the completion.
        box: predicted box; None if the completion is unparsed.
        finish_reason: ``stop`` or ``length``.
        num_tokens: length of the completion.
        entropy: mean negative log-probability of the completion's tokens under the distribution that they were sampled
            from, in nats: an estimate of that distribution's entropy.
        parts: components of the reward before they are weighted, by name.
        reward: weighted sum of the components.
        advantage: within the group.
    """

    step: int
    optimizer_step: int
    rank: int
    prompt: int
    sample: int
    key: str
    entity: str
    category: str
    split: str
    image: str
    width: int
    height: int
    target: Box
    text: str
    box: Box | None
    finish_reason: str
    num_tokens: int
    entropy: float
    parts: Mapping[str, float]
    reward: float
    advantage: float

    def row(self) -> dict[str, Any]:
        """The columns of the file."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "parts"}
        return {**values, **{f"{PART}{name}": value for name, value in self.parts.items()}}


@dataclass(frozen=True, order=True)
class RolloutFile:
    """A file of rollouts: its step, the process that wrote it, and its path."""

    step: int
    rank: int
    path: Path


def write_rollouts(run: Path, records: Sequence[RolloutRecord]) -> Path:
    """Writes the rollouts of one step and process; a file of the same step and process is replaced at once.

    Args:
        run: folder of the run.
        records: at least one, all of the same step and process.

    Raises:
        DataError: the disk cannot be written.
    """
    first = records[0]
    path = run / ROLLOUTS / f"step{first.step:06d}-rank{first.rank}.parquet"
    partial = path.with_name(f"{path.name}.partial")
    try:
        write_rows(partial, [record.row() for record in records], boxes=_BOXES)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(str(path), "rollouts", f"cannot be written ({error.strerror}); free disk space") from error
    return path


def rollout_files(run: Path) -> list[RolloutFile]:
    """The files of a run by step and process; empty if there are none."""
    names = ((_NAME.fullmatch(path.name), path) for path in (run / ROLLOUTS).glob("step*.parquet"))
    return sorted(RolloutFile(int(match[1]), int(match[2]), path) for match, path in names if match)


def read_rollouts(run: Path) -> Iterator[RolloutRecord]:
    """All rollouts of a run, by step, process, prompt and sample.

    Raises:
        DataError: a file is damaged, or a column is missing or of another type.
    """
    for file in rollout_files(run):
        for number, row in enumerate(read_rows(file.path)):
            yield _record(row, f"{file.path} row {number}")


def _record(row: Mapping[str, Any], where: str) -> RolloutRecord:
    def checked(name: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
        value = row.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(where, name, "is missing or of another type; remove the file")
        return value

    fields: dict[str, Any] = {name: checked(name, str) for name in _TEXTS}
    fields |= {name: checked(name, int) for name in _WHOLE}
    numbers: dict[str, Any] = {name: float(checked(name, (float, int))) for name in _NUMBERS}
    parts = {name.removeprefix(PART): float(checked(name, (float, int))) for name in row if name.startswith(PART)}
    if bad := [name for name, value in {**numbers, **parts}.items() if not math.isfinite(value)]:
        raise DataError(where, bad[0], "is not finite; remove the file")
    target = _box(row, "target", where)
    if target is None:
        raise DataError(where, "target", "is missing; remove the file")
    return RolloutRecord(**fields, **numbers, parts=parts, target=target, box=_box(row, "box", where))


def _box(row: Mapping[str, Any], name: str, where: str) -> Box | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(v, float) and v == v for v in value):
        raise DataError(where, name, "is not a list of four numbers; remove the file")
    return (value[0], value[1], value[2], value[3])
