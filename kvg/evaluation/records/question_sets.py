"""The questions of an evaluation, in numbered batches, from sets that are checked before inference starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.forced_starts import ForcedStart, ForcedStarts
from kvg.evaluation.records.question import Question
from kvg.formats.stores import checksums_of, open_store
from kvg.formats.written_boxes import Reading
from kvg.shards.reader import ShardFolder, Tally
from kvg.types import Sample
from kvg.work.processes import is_first
from kvg.work.progress import progress_bar

Place = tuple[int, int, int]  # part of a store, position in it, row of the whole set


@dataclass(frozen=True)
class ArtifactSettings:
    """Corruptions to evaluate in addition to the clean pictures (``kvg.evaluation.records.corruptions``).

    Attributes:
        kinds: of corruption.
        strengths: of each kind.
        seed: of the random numbers.
    """

    kinds: list[str]
    strengths: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a kind or a strength is unknown or occurs twice, or there is none.
        """
        from kvg.evaluation.records.corruptions import KINDS, STRENGTHS  # imports torch, which settings do not need

        for name, given, known in (("kinds", self.kinds, KINDS), ("strengths", self.strengths, STRENGTHS)):
            if not given or len({*given}) < len(given) or not {*given} <= {*known}:
                remedy = f"{list(given)} must be some of {', '.join(map(str, known))}, each once"
                raise ConfigError(f"data.artifacts.{name}", remedy)


@dataclass(frozen=True)
class CheckedSet:
    """A set whose samples have all been checked.

    Attributes:
        name: of the set.
        path: a folder of shards or a published file.
        places: of the usable samples, in stored order.
        num_bad: number of unusable samples and truncated files.
        problems: the first reasons.
        num_choices: number of multiple-choice questions.
        reading: declared format of its boxes.
    """

    name: str
    path: str
    places: tuple[Place, ...]
    num_bad: int = 0
    problems: tuple[str, ...] = ()
    num_choices: int = 0
    reading: Reading = field(default_factory=Reading)

    def read(self, places: Sequence[Place]) -> Iterator[tuple[int, Sample]]:
        """Rows and samples at some of ``places``, which must be in ascending order.

        Raises:
            DataError: the set has changed since it was checked.
        """
        parts = open_store(self.path, reading=self.reading).parts()
        for part, group in groupby(places, key=lambda place: place[0]):
            wanted = iter([(position, row) for _, position, row in group])
            due = next(wanted, None)
            for position, sample in parts[part].read(Tally(log_problems=False)):
                if due is not None and position == due[0]:
                    yield due[1], sample
                    due = next(wanted, None)
                if due is None:
                    break
            if due is not None:
                raise DataError(f"{self.path} row {due[1]}", "set", "has changed while it was read; run it again")


def check_set(name: str, path: str, skip_bad: bool = False, reading: Reading | None = None) -> CheckedSet:
    """Checks all samples of a set, without decoding pictures.

    Args:
        name: of the set.
        path: a folder of shards or a published file.
        skip_bad: skip and log unusable samples; otherwise they are an error.
        reading: declared format of its boxes.

    Raises:
        DataError: the set cannot be opened, or a sample is unusable: a column is empty, a key or a question_id occurs
            twice, a box is off the grid, a picture cannot be read. The message names the first one and the total.
    """
    faults, places, num_choices, known = _Faults(log_problems=skip_bad), [], 0, dict[tuple[str, str], int]()
    reading = reading or Reading()
    store = open_store(path, reading=reading)
    if isinstance(store, ShardFolder) and not skip_bad:
        store.check_files()
    parts = store.parts()
    with progress_bar(hidden=not is_first()) as progress:
        task, start = progress.add_task(f"checking {name}", total=sum(part.num_samples for part in parts)), 0
        for number, part in enumerate(parts):
            for position, sample in part.read(faults):
                progress.update(task, completed=start + position + 1)
                try:
                    num_choices += _check_question(sample, f"{path} row {start + position}", start + position, known)
                except DataError as error:
                    faults.note(error)
                    continue
                places.append((number, position, start + position))
            start += part.num_samples
    num = faults.num_bad + faults.num_cut
    first = faults.first
    if first is not None and not skip_bad:
        remedy = f"{first.remedy} (1 of {num} unusable samples in this set; data.skip_bad: true skips them)"
        raise DataError(first.where, first.field, remedy)
    if not places:
        raise DataError(path, "samples", f"none is usable ({first}); correct the set")
    return CheckedSet(name, path, tuple(places), num, tuple(faults.problems), num_choices, reading)


class _Faults(Tally):
    """A tally that also keeps the first fault."""

    first: DataError | None = None

    def note(self, error: DataError, *, cut: bool = False) -> None:
        self.first = self.first or error
        super().note(error, cut=cut)


def _check_question(sample: Sample, where: str, row: int, known: dict[tuple[str, str], int]) -> bool:
    """Checks a sample; returns whether it is a multiple-choice question. ``known`` maps identifiers to their rows."""
    for name, value in (("question_id", sample.question_id), ("key", sample.key)):
        if value and known.setdefault((name, value), row) != row:
            remedy = f"'{value}' is already in row {known[name, value]}; give each question once"
            raise DataError(where, name, remedy)
    question = Question(sample)
    options = question.options
    if not options:
        question.boxes(where)
    if options and (sample.entity not in options or len(options) < 2):
        raise DataError(where, "options", f"{options} must be at least two names, '{sample.entity}' among them")
    return bool(options)


@dataclass(frozen=True)
class Pass:
    """One pass over a set: clean, or with one corruption."""

    set: CheckedSet
    kind: str = ""
    strength: int = 0
    seed: int = 0

    def question(self, sample: Sample) -> Question:
        """The question about a sample of the set.

        Raises:
            DataError: the picture cannot be corrupted.
        """
        plain = Question(sample, self.set.name)
        if not self.kind:
            return plain
        from kvg.evaluation.records.corruptions import corrupted  # as above

        return corrupted(plain, self.kind, self.strength, self.seed)


@dataclass(frozen=True)
class QuestionBatches:
    """All questions of an evaluation in numbered batches, independent of the number of processes. Picklable.

    A batch holds questions of one pass, so that padding does not depend on how a run is divided.

    Attributes:
        passes: in order.
        size: questions per batch; the last batch of a pass may be shorter.
        forced: given starts of the answers; None for none.
        card: whether the traits of the entity stand before the question.
    """

    passes: tuple[Pass, ...]
    size: int
    forced: ForcedStarts | None = None
    card: bool = False

    @property
    def sizes(self) -> list[int]:
        """Number of questions in each batch."""
        return [len(places) for _, places in self._batches()]

    @property
    def sets(self) -> list[CheckedSet]:
        """The sets without duplicates."""
        return list({one.set.name: one.set for one in self.passes}.values())

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Pass, list[tuple[int, Sample]]]]:
        """Yields number, pass, and rows with samples, for batches in ascending order.

        Raises:
            DataError: a set has changed since it was checked.
        """
        batches = self._batches()
        for index, group in groupby(numbers, key=lambda number: batches[number][0]):
            chosen = list(group)
            samples = self.passes[index].set.read([place for number in chosen for place in batches[number][1]])
            for number in chosen:
                yield number, self.passes[index], [next(samples) for _ in batches[number][1]]

    def settings(self) -> dict[str, Any]:
        """The settings of the questions that determine the answers."""
        return {
            "sets": {one.name: _identity(one) for one in self.sets},
            "artifacts": [[one.kind, one.strength, one.seed] for one in self.passes if one.kind],
            "batch_size": self.size,
            **({"card": True} if self.card else {}),
            **({"forced": [self.forced.kind, self.forced.identity]} if self.forced else {}),
        }

    def start_of(self, question: Question) -> ForcedStart | None:
        """The given start of an answer; None where answers are free.

        Raises:
            DataError: the run whose rationales are changed has not answered this question.
        """
        if self.forced is None:
            return None
        case = question.sample.key, question.artifact, question.strength
        if case not in self.forced.by_case:
            raise DataError(question.sample.key, "thoughts", "has no answer to this question; name a run on this set")
        return self.forced.by_case[case]

    def _batches(self) -> list[tuple[int, Sequence[Place]]]:
        """Pass and places of each batch."""
        return [
            (index, one.set.places[start : start + self.size])
            for index, one in enumerate(self.passes)
            for start in range(0, len(one.set.places), self.size)
        ]


def _identity(one: CheckedSet) -> list[Any]:
    declared = [one.reading.settings] if one.reading.settings else []
    return [checksums_of(one.path, one.reading), len(one.places), *declared]


def question_batches(
    sets: Sequence[CheckedSet],
    size: int,
    artifacts: ArtifactSettings | None = None,
    forced: ForcedStarts | None = None,
    card: bool = False,
) -> QuestionBatches:
    """The batches of all sets clean, and then of all sets with each kind and strength of corruption.

    Raises:
        ConfigError: a corruption cannot be applied to the first sample of a set.
    """
    passes = [Pass(one) for one in sets]
    for kind in artifacts.kinds if artifacts else ():
        for strength in artifacts.strengths if artifacts else ():
            passes += [Pass(one, kind, strength, artifacts.seed if artifacts else 0) for one in sets]
    for one in passes:
        if one.kind and one.strength == passes[-1].strength:
            try:
                one.question(next(one.set.read(one.set.places[:1]))[1])
            except DataError as error:
                raise ConfigError("data.artifacts.kinds", f"{one.kind}: {error}") from error
    return QuestionBatches(tuple(passes), size, forced, card)
