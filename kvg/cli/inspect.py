"""Shows what a set holds: tables, and one HTML page with pictures, boxes and rationales."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.cli.reading_options import add_reading_arguments, reading_of
from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvg.report.set_figures import SetFigures
    from kvg.shards.reader import SampleStore, Tally
    from kvg.types import Sample

PAGE = "contact_sheet.html"
_SAID = 24  # characters of a rationale that a terminal's table shows at least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards, a published file, or the folder of a scanned project")
    parser.add_argument("--num", type=int, default=24, help="samples on the page (default 24); 0 writes none")
    parser.add_argument("--table", type=int, default=0, metavar="NUM", help="so many samples as a table here, too")
    parser.add_argument("--seed", type=int, default=0, help="which samples (default 0)")
    for name, text in (("category", "of the samples shown"), ("entity", "asked for"), ("key", "of a sample to show")):
        parser.add_argument(f"--{name}", action="append", help=f"{text}; may be repeated")
    add_reading_arguments(parser)
    parser.add_argument("--out", help=f"the page (default: {PAGE} in the folder, or beside the file)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables and writes the page.

    Raises:
        ConfigError: a number is below 0.
        DataError: the set cannot be opened, or nothing in it is what was asked for.
    """
    from kvg.catalogue.entry import CATALOGUE
    from kvg.formats.stores import open_store
    from kvg.report.set_figures import SetFigures
    from kvg.shards.manifest import MANIFEST
    from kvg.shards.reader import Tally

    source, tally, figures = Path(args.folder), Tally(), SetFigures()
    if min(args.num, args.table) < 0:
        raise ConfigError("num, table", "must be at least 0")
    if (source / CATALOGUE).is_file() and not (source / MANIFEST).is_file():
        from kvg.pipeline.inspect_catalogue import show_catalogue

        show_catalogue(source, args.table, args.seed, args.category, args.entity)
        return 0
    store = open_store(source, reading=reading_of(args))
    picked = _pass(store, tally, figures, _Choice(args))
    if not figures.num_samples:
        said = f" ({tally.problems[0]})" if tally.problems else ""
        raise DataError(str(source), "samples", f"none can be read{said}")
    if not picked and max(args.num, args.table):
        raise DataError(str(source), "samples", "none has that category, entity or key; look at --table 20")
    facts = figures.facts(_sizes(source, store))
    _print_figures(source, figures, facts)
    _print_samples(picked[: args.table])
    bad = f"; {tally.num_bad} bad samples, {tally.num_cut} cut files" if tally.problems else ""
    told = f"{figures.num_samples} samples{bad}"
    if args.num:
        told += f"; pictures in {_write_page(args, source, figures, facts, picked[: args.num])}"
    print(told)
    return 0


class _Choice:
    """Draws samples as they pass, each of those that fit with the same chance."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.wanted = {"category": args.category, "entity": args.entity, "key": args.key}
        self.most, self.rng, self.num_fitting = max(args.num, args.table), random.Random(f"{args.seed}/inspect"), 0
        self.picked: list[Sample] = []

    def offer(self, sample: Sample) -> None:
        """Takes the sample, or lets it pass (reservoir sampling)."""
        if any(values and getattr(sample, name) not in values for name, values in self.wanted.items()):
            return
        self.num_fitting += 1
        if len(self.picked) < self.most:
            self.picked.append(sample)
        elif self.most and (slot := self.rng.randrange(self.num_fitting)) < self.most:
            self.picked[slot] = sample


def _pass(store: SampleStore, tally: Tally, figures: SetFigures, choice: _Choice) -> list[Sample]:
    from kvg.work.progress import progress_bar

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
    from kvg.shards.reader import ShardFolder

    if isinstance(store, ShardFolder):
        return [entry.num_bytes for entry in store.manifest.shards]
    return [source.stat().st_size]


def _print_figures(source: Path, figures: SetFigures, facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.text import Text

    from kvg.report.set_figures import COLUMNS

    table = _table(str(source), COLUMNS, right=COLUMNS[3:])
    for row in figures.rows():
        table.add_row(*(Text(cell) for cell in row), style="bold" if row[0] == "all" and not row[1] else "")
    console = Console()
    console.print(table)
    for name, text in facts.items():
        console.print(Text(f"{name}: {text}"), soft_wrap=True)


def _print_samples(samples: Sequence[Sample]) -> None:
    from rich.console import Console
    from rich.text import Text

    if not samples:
        return
    names, rows, console = ("key", "category", "entity", "k", "box asked for"), list[list[str]](), Console()
    for sample in samples:
        box = ",".join(f"{value:g}" for value in sample.box_px)
        rows.append([sample.key, sample.category, sample.entity, str(len(sample.objects)), box])
    # What is left of a line, so that each sample has one where the terminal is wide enough.
    taken = sum(max(len(cell) for cell in column) + 3 for column in zip(names, *rows, strict=True))
    room = max(_SAID, console.width - taken - 4)
    table = _table("", (*names, "rationale"), right=("k",))
    for row, sample in zip(rows, samples, strict=True):
        said = " ".join(sample.rationale.split())
        said = said if len(said) <= room else f"{said[: room - 1]}…"
        table.add_row(*map(Text, (*row, said or "-")))  # as text: a name may hold what would be markup
    console.print(table)


def _table(title: str, columns: Sequence[str], right: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _write_page(
    args: argparse.Namespace, source: Path, figures: SetFigures, facts: dict[str, str], samples: Sequence[Sample]
) -> Path:
    from kvg.report.contact_sheet import Sheet, contact_sheet
    from kvg.work.files import atomic_write, disk_errors

    out = Path(args.out) if args.out else (source if source.is_dir() else source.parent) / PAGE
    lead = f"{figures.num_samples} samples that ask for {figures.num_entities} entities; {len(samples)} of them below."
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, contact_sheet(Sheet(str(source), lead, figures.rows(), facts, samples)))
    return out
