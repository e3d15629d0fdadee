"""Audits a set: its distributions, and shortcuts by which the target could be found without its looks."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kvg.audit.statistics import Figures, gather
from kvg.errors import ConfigError
from kvg.formats.stores import open_store
from kvg.report.shortcut_page import shortcut_page
from kvg.shards.reader import Tally
from kvg.work.files import atomic_write, disk_errors

RECORD, PAGE = "shortcuts.json", "shortcuts.html"


def find_shortcuts(
    source: Path, num: int = 2000, seed: int = 0, out: Path | None = None
) -> tuple[Figures, Tally, Path]:
    """Audits a set, and writes ``shortcuts.json`` and ``shortcuts.html``.

    Args:
        source: folder of shards, or a published file.
        num: number of composites whose pixels are read; 0 for none.
        seed: seed of their choice, and of the halves for cross-validation.
        out: folder for both files; None for that of the set.

    Returns:
        The figures, the counts of unreadable samples, and the path of the page.

    Raises:
        ConfigError: ``num`` is below 0.
        DataError: the set cannot be opened, or the disk cannot be written.
    """
    if num < 0:
        raise ConfigError("--num", f"{num} is below 0; give 0 to read no pixels")
    tally = Tally()
    figures = gather(open_store(source), num, seed, tally)
    out = out or (source if source.is_dir() else source.parent)
    record = figures.record()
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        atomic_write(out / PAGE, shortcut_page(str(source), record))
    return figures, tally, out / PAGE


def print_figures(title: str, figures: Figures) -> None:
    """Prints the counts, the accuracies of shortcuts, and a line for each warning."""
    console = Console()
    counts = Table(title=title, show_header=False)
    for name, values in figures.ordered().items():
        total = sum(values.values())
        text = ", ".join(f"{value}: {num / total:.1%}" for value, num in list(values.items())[:12])
        counts.add_row(name, text + (f", and {len(values) - 12} more" if len(values) > 12 else ""))
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
