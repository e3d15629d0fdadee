"""Scores a file of answers without a model: reads the box of each answer by a parser, and compares it with the target.

The file may come from `kvg predict` or another program. A line needs ``answer`` and ``gt_bbox``, see
``kvg.evaluation.records.prediction``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from kvg.box_forms import BoxUnit
from kvg.errors import ConfigError, DataError
from kvg.evaluation.figures.accuracy import Figure, artifact_curves, choice_table, figures
from kvg.evaluation.records.fields import name_field, on_grid
from kvg.evaluation.records.prediction import Prediction, num_lines, read_lines
from kvg.evaluation.records.scoring import score
from kvg.report.tables import Cell, FigureTable, Row, percent, share
from kvg.work.files import disk_errors
from kvg.work.progress import with_progress

_GROUPS = {"split": "by split", "set": "by set", "category": "by category"}


def score_file(
    path: Path, out: Path | None, parser: str, unit: BoxUnit | None = None
) -> tuple[list[Prediction], Counter[int], int]:
    """Scores every line of a file, and writes the lines with their scores, all or none.

    Args:
        path: path of the lines.
        out: file to write; None to write none.
        parser: a key of ``PARSERS``.
        unit: unit of the true boxes; they are written on the 0-1000 grid.

    Returns:
        The predictions without their texts, the number of matches of each pattern (0 = none), and the number of answers
        with absolute boxes.

    Raises:
        ConfigError: both paths are the same file.
        DataError: a line is wrong, a question occurs twice, or the disk cannot be written.
    """
    if out is None:
        return _scored(path, None, parser, unit)
    partial = out.with_name(f"{out.name}.partial")
    if path.resolve() in (out.resolve(), partial.resolve()) or (out.exists() and path.exists() and out.samefile(path)):
        raise ConfigError("--out", f"'{out}' is also the input file; name another one")
    if out.is_dir():
        raise ConfigError("--out", f"'{out}' is a folder; name a file")
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as stream:
                result = _scored(path, stream, parser, unit)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)
    return result


def _scored(
    path: Path, stream: TextIO | None, parser: str, unit: BoxUnit | None
) -> tuple[list[Prediction], Counter[int], int]:
    """Scores the lines of a file, and writes each to ``stream``; see ``score_file``."""
    cases: list[Prediction] = []
    patterns: Counter[int] = Counter()
    lines: dict[str, int] = {}
    num_absolute = 0
    for number, line in with_progress(read_lines(path), "scoring answers", num_lines(path)):
        where = f"{path} line {number}"
        record = on_grid(line, unit, where)
        result = score(record, where, parser)
        verdict: dict[str, Any] = {"correct": result.correct, "parser": parser}
        if "options" in record:
            verdict["chosen"] = result.chosen
        else:
            box = None if result.box is None else list(result.box)
            verdict |= {"box": box, "pattern": result.pattern, "iou": result.iou}
            patterns[result.pattern] += 1
            num_absolute += record.get("codec") == "absolute"
        judged = {**record, **verdict}
        cases.append(Prediction.from_score(judged, result, where, number))
        _check_name(cases[-1], name_field(judged, where)[1], where, number, lines)
        if stream is not None:
            _write(judged, stream)
    return cases, patterns, num_absolute


def _write(line: Mapping[str, Any], stream: TextIO) -> None:
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can escape and UTF-8 cannot encode
        text = json.dumps(line)
    stream.write(text + "\n")


def _check_name(case: Prediction, field: str, where: str, number: int, lines: dict[str, int]) -> None:
    """Raises an error if a question occurs twice; ``lines`` has the line of each question so far."""
    if field and lines.setdefault(case.id, number) != number:
        raise DataError(where, field, f"'{case.key}' is also in line {lines[case.id]}; give each question once")


def tables_of(cases: Sequence[Prediction], parser: str, seed: int) -> Iterator[FigureTable]:
    """Yields tables of scored predictions: boxes on clean and on corrupted pictures, and multiple-choice questions.

    Args:
        cases: predictions, scored by one parser.
        parser: name of the parser.
        seed: seed of the intervals.
    """
    result = figures(cases, seed)
    if num := sum(not case.has_truth for case in cases):
        yield FigureTable(["answers without a true box"], [[str(num)]], "These are in no figure")
    heads: list[Cell | str] = ["", "cases", Cell("Acc@0.5", "%"), Cell("mean IoU", "%"), Cell("unparsed", "%")]
    if result:
        title = f"Boxes as {parser} reads them, with 95% bootstrap intervals; an answer without a box is wrong"
        yield FigureTable(heads, list(_rows(result)), title)
    corrupted: list[Row] = [
        [f"{curve['artifact']} {point['strength']}", str(point["accuracy"]["n"]), share(point["accuracy"])]
        for curve in artifact_curves(cases, seed)
        for point in curve["points"]
    ]
    if corrupted:
        yield FigureTable(heads[:3], corrupted, "On corrupted pictures, by strength (0: clean)")
    if chosen := choice_table(cases, seed):
        rows: list[Row] = [
            [
                one["name"] or "all",
                str(one["n"]),
                share(one["accuracy"]),
                percent(one["chance"]),
                share(one["unparsed"]),
            ]
            for one in chosen["sets"]
        ]
        yield FigureTable(["", "cases", "right", "by guessing", "unparsed"], rows, "Multiple-choice questions")


def _rows(result: Sequence[Figure]) -> Iterator[Row]:
    part = "all"
    for figure in result:
        by = figure["by"]
        if by not in (part, *_GROUPS):
            continue
        if by != part:
            yield [_GROUPS[by]]
            part = by
        yield [
            figure["name"],
            str(figure["n"]),
            *map(share, (figure["accuracy"], figure["mean_iou"], figure["unparsed"])),
        ]
        if by == "all" and figure["category_mean"]:
            yield ["mean of categories", "", share(figure["category_mean"]), "", ""]
