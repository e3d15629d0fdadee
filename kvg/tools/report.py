"""Makes the table and the page of a set of runs: results.json, index.html, and the table in the terminal."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvg.errors import ConfigError

if TYPE_CHECKING:
    from kvg.report.figures import Gain, Row
    from kvg.types import Sample

PACKAGES = ("kvg", "torch", "lightning", "transformers")
PER_VERDICT = {"base": 2, "direct_sft": 2, "cot_sft": 4, "cot_sft_grpo": 4}  # cases shown: 24 in all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="STAGE=DIR", help="where `kvg test` left its predictions.jsonl"
    )
    parser.add_argument("--shards", required=True, help="the test set: folder of shards, or a published file")
    parser.add_argument("--out", required=True, help="folder for results.json and index.html")
    parser.add_argument("--curves", nargs="*", default=[], metavar="STAGE=DIR", help="where `kvg fit` left its logs")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the cases shown (default 0)")


def run(args: argparse.Namespace) -> int:
    """Writes both files and prints the table.

    Raises:
        ConfigError: a stage is unknown or named twice.
        DataError: predictions, shards or logs cannot be used.
    """
    from kvg.report.cases import read_predictions
    from kvg.report.curves import read_curves
    from kvg.report.figures import gains, rows
    from kvg.report.gallery import pick
    from kvg.report.page import Contents, page
    from kvg.report.recall import recall_rows

    runs, curved = named(args.runs, "--runs"), named(args.curves, "--curves")
    cases = {stage: read_predictions(folder) for stage, folder in runs.items()}
    samples = read_samples(args.shards)
    figures, differences = rows(cases, args.seed), gains(cases, args.seed)
    recalls = recall_rows(cases, samples)
    versions = installed()
    settings = {"runs": runs, "shards": args.shards, "curves": curved, "seed": args.seed}
    record = {"rows": figures, "gains": differences, "recall": recalls, "settings": settings, "versions": versions}
    contents = Contents(
        rows=figures,
        gains=differences,
        recalls=recalls,
        curves={stage: read_curves(folder) for stage, folder in curved.items()},
        cases=pick(cases, samples.keys(), PER_VERDICT, args.seed),
        samples=samples,
        facts={"test set": args.shards, "seed": str(args.seed), **versions},
    )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "index.html", page(contents))
    _write(out / "results.json", json.dumps(record, indent=1) + "\n")
    print_tables(figures, differences)
    print(f"{out / 'results.json'}   {out / 'index.html'}")
    return 0


def named(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``STAGE=DIR`` pairs in the order of the stages.

    Raises:
        ConfigError: one is no such pair, or its stage is unknown or named twice.
    """
    from kvg.report.cases import STAGES

    found: dict[str, str] = {}
    for pair in pairs:
        stage, equals, folder = pair.partition("=")
        if not equals or not folder or stage not in STAGES:
            raise ConfigError(option, f"'{pair}' is not STAGE=DIR with a stage of {', '.join(STAGES)}")
        if stage in found:
            raise ConfigError(option, f"{stage} is named twice; name each stage once")
        found[stage] = folder
    return {stage: found[stage] for stage in STAGES if stage in found}


def read_samples(source: str) -> dict[str, Sample]:
    """All good samples of a set, by key.

    Raises:
        DataError: it cannot be opened.
    """
    from kvg.formats.stores import open_store

    return {sample.key: sample for part in open_store(source).parts() for _, sample in part.read()}


def installed() -> dict[str, str]:
    """Versions of what the figures depend on."""
    from importlib import metadata

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def print_tables(rows: Sequence[Row], gains: Sequence[Gain]) -> None:
    """Prints accuracies with their intervals, and what each stage gained."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from kvg.report.cases import STAGES
    from kvg.report.figures import KNOWLEDGE, SPLITS

    console = Console()
    found = {(row["stage"], row["split"], row["knowledge"]): row for row in rows}
    groups = [(s, k) for s in SPLITS for k in KNOWLEDGE if any((stage, s, k) in found for stage in STAGES)]
    counts = {group: max(r["n"] for r in rows if (r["split"], r["knowledge"]) == group) for group in groups}
    table = Table(title="Percent right (IoU ≥ 0.5), 95% interval", box=SIMPLE_HEAD)
    table.collapse_padding, table.pad_edge = True, False  # all six groups fit into 80 columns
    table.add_column("stage", no_wrap=True)
    for split, knowledge in groups:
        table.add_column(
            f"{split}\n{knowledge}\n[dim]n={counts[split, knowledge]}[/dim]", justify="right", no_wrap=True
        )
    for stage in dict.fromkeys(row["stage"] for row in rows):
        cells = [_cell(found.get((stage, *group))) for group in groups]
        table.add_row(STAGES[stage].replace(" + ", "\n+ "), *cells)
    console.print(table)
    if not gains:
        return
    lines = Table(title="Gain in points, 95% interval", box=SIMPLE_HEAD)
    for title in ("", "split", "entities"):
        lines.add_column(title, no_wrap=True)
    lines.add_column("gain", justify="right", no_wrap=True)
    lines.add_column("interval", justify="right", no_wrap=True)
    for gain in gains:
        colour = "green" if gain["ci_low"] > 0 else "red" if gain["ci_high"] < 0 else "default"
        name = f"{STAGES[gain['after']]} over {STAGES[gain['before']]}"
        value = f"[{colour}]{100 * gain['gain']:+.1f}[/{colour}]"
        interval = f"{100 * gain['ci_low']:+.1f} to {100 * gain['ci_high']:+.1f}"
        lines.add_row(name, gain["split"], gain["knowledge"], value, interval)
    console.print(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    low, high = (f"{100 * bound:.1f}".replace("100.0", "100") for bound in (row["ci_low"], row["ci_high"]))
    return f"{100 * row['acc']:.1f}\n[dim]{low}–{high}[/dim]"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)
