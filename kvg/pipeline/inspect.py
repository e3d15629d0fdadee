"""Shows the content of a set: tables, and an HTML page with pictures, boxes and rationales."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvg.errors import DataError
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.report.contact_sheet import Sheet, contact_sheet
from kvg.report.set_figures import COLUMNS, SetFigures
from kvg.shards.reader import SampleStore, ShardFolder, Tally
from kvg.types import Sample
from kvg.work.files import atomic_write, disk_errors
from kvg.work.progress import progress_bar

PAGE = "contact_sheet.html"
_MIN_RATIONALE = 24  # minimum number of characters of a rationale in the table


@dataclass(frozen=True)
class Inspection:
    """The content of a set.

    Attributes:
        source: path of the set.
        figures: counts of all samples.
        facts: sentences about the set by title.
        samples: random choice of the samples that match.
        tally: counts of samples that could not be read.
    """

    source: Path
    figures: SetFigures
    facts: dict[str, str]
    samples: Sequence[Sample]
    tally: Tally

    def write_page(self, out: Path, num: int) -> None:
        """Writes one HTML page with ``num`` samples.

        Raises:
            DataError: the disk cannot be written.
        """
        figures, samples = self.figures, self.samples[:num]
        lead = (
            f"{figures.num_samples} samples with {figures.num_entities} target entities; {len(samples)} of them below."
        )
        with disk_errors(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(out, contact_sheet(Sheet(str(self.source), lead, figures.rows(), self.facts, samples)))


def inspect_set(
    source: Path,
    num: int = 24,
    seed: int = 0,
    only: Mapping[str, Sequence[str] | None] | None = None,
    reading: Reading | None = None,
) -> Inspection:
    """Reads a whole set.

    Args:
        source: folder of shards, or a published file.
        num: number of chosen samples.
        seed: seed of the choice.
        only: allowed values of ``category``, ``entity`` and ``key`` of the chosen samples; None for all.
        reading: unit and frame of the boxes if the form does not define them.

    Raises:
        DataError: the set cannot be opened, or no sample has these values.
    """
    store, tally, figures = open_store(source, reading=reading), Tally(), SetFigures()
    samples = _pass(store, tally, figures, _Choice(num, seed, only or {}))
    if not figures.num_samples:
        first = f" ({tally.problems[0]})" if tally.problems else ""
        raise DataError(str(source), "samples", f"none can be read{first}")
    if not samples and num:
        raise DataError(str(source), "samples", "none has that category, entity or key; look at --table 20")
    return Inspection(source, figures, figures.facts(_sizes(source, store)), samples, tally)


class _Choice:
    """Chooses samples from a stream, each of those that match with the same probability."""

    def __init__(self, most: int, seed: int, only: Mapping[str, Sequence[str] | None]) -> None:
        self.only, self.most, self.num_fitting = only, most, 0
        self.rng = random.Random(f"{seed}/inspect")
        self.picked: list[Sample] = []

    def offer(self, sample: Sample) -> None:
        """Chooses or skips a sample (reservoir sampling)."""
        if any(values and getattr(sample, name) not in values for name, values in self.only.items()):
            return
        self.num_fitting += 1
        if len(self.picked) < self.most:
            self.picked.append(sample)
        elif self.most and (slot := self.rng.randrange(self.num_fitting)) < self.most:
            self.picked[slot] = sample


def _pass(store: SampleStore, tally: Tally, figures: SetFigures, choice: _Choice) -> list[Sample]:
    parts = store.parts()
    with progress_bar() as progress:
        task = progress.add_task("reading samples", total=sum(part.num_samples for part in parts))
        for part in parts:
            for _, sample in part.read(tally):
                figures.add(sample)
                choice.offer(sample)
                progress.advance(task)
    return choice.picked


def _sizes(source: Path, store: SampleStore) -> list[int]:
    if isinstance(store, ShardFolder):
        return [entry.num_bytes for entry in store.manifest.shards]
    return [source.stat().st_size]


def print_figures(source: Path, figures: SetFigures, facts: dict[str, str]) -> None:
    """Prints counts by category and split, and the facts."""
    table = _table(str(source), COLUMNS, right=COLUMNS[3:])
    for row in figures.rows():
        table.add_row(*(Text(cell) for cell in row), style="bold" if row[0] == "all" and not row[1] else "")
    console = Console()
    console.print(table)
    for name, text in facts.items():
        console.print(Text(f"{name}: {text}"), soft_wrap=True)


def print_samples(samples: Sequence[Sample]) -> None:
    """Prints one line for each sample."""
    if not samples:
        return
    names, rows, console = ("key", "category", "entity", "k", "box asked for"), list[list[str]](), Console()
    for sample in samples:
        box = ",".join(f"{value:g}" for value in sample.box_px) if sample.has_box else "not known"
        rows.append([sample.key, sample.category, sample.entity, str(len(sample.objects)), box])
    # The rationale is cut so that each sample fits into one line, if the terminal is wide enough.
    taken = sum(max(len(cell) for cell in column) + 3 for column in zip(names, *rows, strict=True))
    room = max(_MIN_RATIONALE, console.width - taken - 4)
    table = _table("", (*names, "rationale"), right=("k",))
    for row, sample in zip(rows, samples, strict=True):
        text = " ".join(sample.rationale.split())
        text = text if len(text) <= room else f"{text[: room - 1]}…"
        table.add_row(*map(Text, (*row, text or "-")))  # as Text, since a name may look like markup
    console.print(table)


def _table(title: str, columns: Sequence[str], right: Sequence[str]) -> Any:
    table = Table(title=Text(title) if title else None)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table
