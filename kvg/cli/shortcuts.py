"""Tells how a set is distributed, and by what else than its looks the object asked for could be found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from kvg.errors import ConfigError

if TYPE_CHECKING:
    from kvg.audit.statistics import Figures

RECORD, PAGE = "shortcuts.json", "shortcuts.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards, or a published file")
    parser.add_argument("--num", type=int, default=2000, help="composites whose pixels are looked at (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="which of them, and which half guesses which (default 0)")
    parser.add_argument("--out", help=f"folder for {RECORD} and {PAGE} (default: that of the set)")


def run(args: argparse.Namespace) -> int:
    """Prints tables, and writes the record and the page.

    Raises:
        ConfigError: ``--num`` is below 0.
        DataError: the set cannot be opened, or nothing can be written.
    """
    from kvg.audit.statistics import gather
    from kvg.formats.stores import open_store
    from kvg.report.shortcut_page import shortcut_page
    from kvg.shards.reader import Tally
    from kvg.work.files import atomic_write, disk_errors

    if args.num < 0:
        raise ConfigError("--num", f"{args.num} is below 0; give 0 to leave the pixels alone")
    source, tally = Path(args.folder), Tally()
    figures = gather(open_store(source), args.num, args.seed, tally)
    show(str(source), figures)
    out = Path(args.out) if args.out else source if source.is_dir() else source.parent
    record = figures.record()
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        atomic_write(out / PAGE, shortcut_page(str(source), record))
    bad = f"; {tally.num_bad} bad samples, {tally.num_cut} cut files" if tally.problems else ""
    print(f"{figures.num_samples} composites{bad}; {len(figures.warnings)} warnings; more in {out / PAGE}")
    return 0


def show(title: str, figures: Figures) -> None:
    """Prints what was counted and what came of guessing, and a line for each warning."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    counts = Table(title=title, show_header=False)
    for name, values in figures.ordered().items():
        total = sum(values.values())
        shown = ", ".join(f"{value}: {num / total:.1%}" for value, num in list(values.items())[:12])
        counts.add_row(name, shown + (f", and {len(values) - 12} more" if len(values) > 12 else ""))
    console.print(counts)
    entities = Table(title="entities: least / median / most")
    for name in ("category", "entities", "present", "asked for", "distractor"):
        entities.add_column(name, justify="left" if name == "category" else "right")
    for row in figures.entities():
        spans = [" / ".join(f"{v:g}" for v in row[name]) for name in ("present", "asked for", "distractor")]
        entities.add_row(row["category"], str(row["entities"]), *spans)
    console.print(entities)
    if figures.trials:
        trials = Table(title="found without knowing its looks")
        for name in ("by", "found", "interval", "chance", "composites"):
            trials.add_column(name, justify="left" if name == "by" else "right")
        for t in figures.trials:
            cells = (f"{t.accuracy:.1%}", f"{t.low:.1%} to {t.high:.1%}", f"{t.chance:.1%}", str(t.num))
            trials.add_row(t.family, *cells, style="bold red" if t.warns else "")
        console.print(trials)
    for line in figures.warnings:
        console.print(f"[bold red]shortcut[/] {line}", highlight=False)
