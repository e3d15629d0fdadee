"""``kvg-data score``: scores a file of answers without a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_PARSERS = ("strict", "published-v2", "published-v3")  # a test holds them against ``PARSERS``, which needs torch
_UNITS = ("pixels", "relative_1000", "unit")
_WIDTH = 120  # columns of output that is not a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("file", metavar="FILE.jsonl", help="a line an answer, with `answer` and `gt_bbox`")
    parser.add_argument(
        "--parser",
        choices=_PARSERS,
        default=_PARSERS[0],
        help="strict (default): the answer block alone; published-v2, published-v3: as DeepPerception's and KARL's do",
    )
    text = "the same lines with box, pattern, iou, correct and parser (default: no file, only the figures)"
    parser.add_argument("--out", metavar="OUT.jsonl", help=text)
    parser.add_argument(
        "--box-unit",
        choices=_UNITS,
        help="of gt_bbox and of the objects' boxes (default: relative_1000, the 0-1000 grid); pixels need `size`",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the intervals (default 0)")


def run(args: argparse.Namespace) -> int:
    """Prints the figures, and writes the scored lines where ``--out`` is given.

    Raises:
        ConfigError: input and output are the same file.
        DataError: a line cannot be scored; then nothing is written.
    """
    from rich.console import Console

    from kvg.pipeline.score import score_file, tables_of
    from kvg.report.tables import terminal_table
    from kvg.runs.folder import PREDICTIONS

    path, out = Path(args.file), Path(args.out) if args.out else None
    path = path / PREDICTIONS if path.is_dir() else path
    cases, patterns, num_absolute = score_file(path, out, args.parser, args.box_unit)
    if num_absolute and args.parser != _PARSERS[0]:
        text = "hold boxes in pixels (codec: absolute), which the published parsers read as 0-1000 coordinates"
        print(f"kvg-data: {num_absolute} lines {text}; --parser strict converts them", file=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in tables_of(cases, args.parser, args.seed):
        console.print(terminal_table(table))
    if patterns:
        hits = ", ".join(f"{pattern or 'none'}: {num}" for pattern, num in sorted(patterns.items()))
        console.print(f"answers by matched pattern: {hits}", highlight=False)
    if out:
        print(out)
    return 0
