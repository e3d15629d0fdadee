"""Judges a file of answers without a model: which box a parser reads in each, and whether it is right.

The file may be that of `kvg predict` or anybody's; a line needs ``answer`` and ``gt_bbox``
(``kvg.evaluation.records.prediction``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.box_forms import BoxUnit
    from kvg.evaluation.figures.accuracy import Figure
    from kvg.evaluation.records.prediction import Case
    from kvg.report.tables import Row, Table

_PARSERS = ("strict", "published-v2", "published-v3")  # a test holds them against ``PARSERS``, which needs torch
_UNITS = ("pixels", "relative_1000", "unit")
_GROUPS = {"split": "by split", "set": "by set", "category": "by category"}
_WIDTH = 120  # of what is printed into a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("file", metavar="FILE.jsonl", help="a line an answer, with `answer` and `gt_bbox`")
    parser.add_argument(
        "--parser",
        choices=_PARSERS,
        default=_PARSERS[0],
        help="strict (default): the answer block alone; published-v2, published-v3: as DeepPerception's and KARL's do",
    )
    parser.add_argument(
        "--out", required=True, metavar="OUT.jsonl", help="the same lines with box, pattern, iou, correct and parser"
    )
    parser.add_argument(
        "--box-unit",
        choices=_UNITS,
        help="of gt_bbox and of the objects' boxes (default: relative_1000, the 0-1000 grid); pixels need `size`",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (default 0)")


def run(args: argparse.Namespace) -> int:
    """Writes the judged lines, and prints the figures.

    Raises:
        ConfigError: both files are one.
        DataError: a line cannot be judged; then nothing is written.
    """
    from rich.console import Console

    from kvg.evaluation.records.prediction import PREDICTIONS
    from kvg.report.tables import terminal_table

    path, out = Path(args.file), Path(args.out)
    path = path / PREDICTIONS if path.is_dir() else path
    cases, patterns, num_absolute = judge_file(path, out, args.parser, args.box_unit)
    if num_absolute and args.parser != _PARSERS[0]:
        told = "hold boxes in pixels (codec: absolute), which the published parsers read as if they stood on the grid"
        print(f"kvg-data: {num_absolute} lines {told}; --parser strict converts them", file=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in tables_of(cases, args.parser, args.seed):
        console.print(terminal_table(table))
    if patterns:
        hits = ", ".join(f"{pattern or 'none'}: {num}" for pattern, num in sorted(patterns.items()))
        console.print(f"answers by the pattern that hit: {hits}", highlight=False)
    print(out)
    return 0


def judge_file(path: Path, out: Path, parser: str, unit: BoxUnit | None = None) -> tuple[list[Case], Counter[int], int]:
    """Judges every line of a file and writes it with its verdict, all of them or none.

    Args:
        path: of the lines.
        out: file to write.
        parser: a key of ``PARSERS``.
        unit: of the true boxes; they are written on the 0-1000 grid.

    Returns:
        The cases without their texts, how often each pattern hit (0 = none), and how many answers hold pixels.

    Raises:
        ConfigError: both files are one.
        DataError: a line is wrong, a question comes twice, or the disk refuses.
    """
    from kvg.evaluation.records.fields import on_grid
    from kvg.evaluation.records.prediction import read_lines
    from kvg.evaluation.records.scoring import score
    from kvg.work.files import disk_errors
    from kvg.work.progress import shown

    partial = out.with_name(f"{out.name}.partial")
    if path.resolve() in (out.resolve(), partial.resolve()) or (out.exists() and path.exists() and out.samefile(path)):
        raise ConfigError("--out", f"'{out}' is the file that is read; name another one")
    if out.is_dir():
        raise ConfigError("--out", f"'{out}' is a folder; name a file")
    cases: list[Case] = []
    patterns: Counter[int] = Counter()
    lines: dict[str, int] = {}
    num_absolute = 0
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as stream:
                for number, line in shown(read_lines(path), "judging answers", None):
                    where = f"{path} line {number}"
                    record = on_grid(line, unit, where)
                    found = score(record, where, parser)
                    told: dict[str, Any] = {"correct": found.correct, "parser": parser}
                    if "options" in record:
                        told["chosen"] = found.chosen
                    else:
                        box = None if found.box is None else list(found.box)
                        told |= {"box": box, "pattern": found.pattern, "iou": found.iou}
                        patterns[found.pattern] += 1
                        num_absolute += record.get("codec") == "absolute"
                    judged = {**record, **told}
                    cases.append(_case(judged, where, number, lines))
                    _write(judged, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)
    return cases, patterns, num_absolute


def _write(line: Mapping[str, Any], stream: TextIO) -> None:
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold and UTF-8 cannot
        text = json.dumps(line)
    stream.write(text + "\n")


def _case(judged: Mapping[str, Any], where: str, number: int, lines: dict[str, int]) -> Case:
    """What the figures need of a line; fields that they do not need may hold anything.

    ``lines`` takes in where each question stands.
    """
    from kvg.evaluation.records.fields import name_field, text_field, whole_number
    from kvg.evaluation.records.prediction import Case

    strength = whole_number(judged, "strength", where)
    name, field = name_field(judged, where)
    image = judged.get("image")
    facts = {name: judged[name] for name in ("parser", "pattern", "options", "chosen") if name in judged}
    case = Case(
        key=name or f"line {number}",
        answer="",
        truth=(),
        box=judged.get("box"),
        iou=judged.get("iou", 0.0),
        correct=judged["correct"],
        set=text_field(judged, "set", where),
        category=text_field(judged, "category", where),
        split=text_field(judged, "split", where),
        image=image if isinstance(image, str) else "",
        facts={**facts, "artifact": text_field(judged, "artifact", where), "strength": strength},
    )
    if name and lines.setdefault(case.id, number) != number:
        raise DataError(where, field, f"'{case.key}' stands in line {lines[case.id]} already; give each question once")
    return case


def tables_of(cases: Sequence[Case], parser: str, seed: int) -> Iterator[Table]:
    """Figures of judged cases: of boxes on pictures as they are, on disturbed ones, and of questions with choices.

    Args:
        cases: judged by one parser.
        parser: which.
        seed: of the intervals.
    """
    from kvg.evaluation.figures.accuracy import artifact_curves, choice_table, figures
    from kvg.report.tables import Cell, Table, percent, share

    found = figures(cases, seed)
    heads: list[Cell | str] = ["", "cases", Cell("Acc@0.5", "%"), Cell("mean IoU", "%"), Cell("unread", "%")]
    if found:
        title = f"Boxes as {parser} reads them, with 95% bootstrap intervals; an answer without a box is wrong"
        yield Table(heads, list(_rows(found)), title)
    disturbed: list[Row] = [
        [f"{curve['artifact']} {point['strength']}", str(point["accuracy"]["n"]), share(point["accuracy"])]
        for curve in artifact_curves(cases, seed)
        for point in curve["points"]
    ]
    if disturbed:
        yield Table(heads[:3], disturbed, "On disturbed pictures, by strength (0: as they are)")
    if chosen := choice_table(cases, seed):
        rows: list[Row] = [
            [one["name"] or "all", str(one["n"]), share(one["accuracy"]), percent(one["chance"]), share(one["unread"])]
            for one in chosen["sets"]
        ]
        yield Table(["", "cases", "right", "by guessing", "unread"], rows, "Questions of several choices")


def _rows(found: Sequence[Figure]) -> Iterator[Row]:
    from kvg.report.tables import share

    part = "all"
    for figure in found:
        by = figure["by"]
        if by not in (part, *_GROUPS):
            continue
        if by != part:
            yield [_GROUPS[by]]
            part = by
        yield [
            figure["name"],
            str(figure["n"]),
            *map(share, (figure["accuracy"], figure["mean_iou"], figure["unread"])),
        ]
        if by == "all" and figure["category_mean"]:
            yield ["mean of categories", "", share(figure["category_mean"]), "", ""]
