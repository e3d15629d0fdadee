"""Shows a scanned project for `kvg-data inspect`: its catalogue, and what was left out and why."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvg.catalogue.entry import CATALOGUE, Entry, read_catalogue
from kvg.pipeline.scan import REJECTED
from kvg.records import json_lines, object_of, parse_json, text_of

_USES = ("train", "val", "test")


def show_catalogue(
    folder: Path, num: int, seed: int, categories: Sequence[str] | None, entities: Sequence[str] | None
) -> None:
    """Prints the tables.

    Args:
        folder: folder of the project.
        num: number of entries that are listed.
        seed: seed of their choice.
        categories: categories of the listed entries; None for all.
        entities: entities of the listed entries; None for all.

    Raises:
        DataError: the catalogue is damaged.
    """
    console, entries = Console(), list(read_catalogue(folder / CATALOGUE))
    names = ("category", "split", "pictures", "entities", *_USES, "with box")
    table = Table(title=Text(str(folder)))
    for name in names:
        table.add_column(name, justify="left" if name in names[:2] else "right")
    for row in rows_of(entries):
        table.add_row(*map(Text, row), style="bold" if row[0] == "all" and not row[1] else "")
    console.print(table)
    for name, counts in facts_of(folder, entries).items():
        console.print(Text(f"{name}: {', '.join(f'{key} {count}' for key, count in counts.items())}"), soft_wrap=True)
    fitting = [
        e for e in entries if (not categories or e.category in categories) and (not entities or e.entity in entities)
    ]
    sampled = random.Random(f"{seed}/inspect").sample(fitting, min(num, len(fitting)))
    if sampled:
        table = Table("picture", "category", "entity", "use", "size", "box", "licence")
        for entry in sampled:
            box = ",".join(f"{value:g}" for value in entry.box_px) if entry.box_px else "-"
            size = f"{entry.width}x{entry.height}"
            cells = (entry.ref, entry.category, entry.entity, entry.use, size, box, entry.licence or "not known")
            table.add_row(*map(Text, cells))
        console.print(table)


def rows_of(entries: Sequence[Entry]) -> list[list[str]]:
    """Returns counts by category and split, and their sum if there are several."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.category, entry.split), []).append(entry)
    rows = [_row(*key, group) for key, group in sorted(groups.items())]
    return [*rows, _row("all", "", entries)] if len(rows) > 1 else rows


def _row(category: str, split: str, entries: Sequence[Entry]) -> list[str]:
    uses = Counter(entry.use for entry in entries)
    boxes = sum(entry.box_px is not None for entry in entries)
    num_entities = len({(entry.category, entry.entity) for entry in entries})
    return [category, split, *map(str, (len(entries), num_entities, *(uses[use] for use in _USES), boxes))]


def facts_of(folder: Path, entries: Sequence[Entry]) -> dict[str, dict[str, int]]:
    """Returns counts by source and by licence, and of rejections by their field."""
    rejected: Counter[str] = Counter()
    if (folder / REJECTED).is_file():
        for number, line in json_lines(folder / REJECTED):
            where = f"{folder / REJECTED} line {number}"
            rejected[text_of(where, object_of(where, "rejection", parse_json(line, where)), "field")] += 1
    facts = {
        "sources": dict(Counter(entry.source for entry in entries).most_common()),
        "licences": dict(Counter(entry.licence or "not known" for entry in entries).most_common()),
        "left out": dict(rejected.most_common()),
    }
    return {name: counts for name, counts in facts.items() if counts}
