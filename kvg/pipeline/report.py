"""Makes the report of one run or a comparison: index.html, results.json, results.md, and tables in the terminal."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvg.errors import ConfigError
from kvg.evaluation.figures.exposure import exposure_of
from kvg.evaluation.figures.levels import read_levels
from kvg.evaluation.records.prediction import Prediction, read_predictions
from kvg.formats.written_boxes import Reading
from kvg.report.curves import read_curves
from kvg.report.pairs import pairs_of
from kvg.report.report import Report, chosen_gallery, make_report
from kvg.report.results import ReportContext, read_record, with_knowledge
from kvg.report.sections import BY_CATEGORY
from kvg.report.tables import terminal_table
from kvg.work.files import atomic_write, disk_errors
from kvg.work.progress import with_progress

PACKAGES: Final = ("kvg", "torch", "lightning", "transformers")
PAGE, RESULTS, TABLES = "index.html", "results.json", "results.md"
CASES: Final = 120
IN_TERMINAL: Final = (
    "differences",
    "accuracy",
    "choice",
    "artifacts",
)  # anchors of sections in the terminal in the terminal


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report.

    Attributes:
        runs: folders with ``predictions.jsonl``, or such files, by name.
        pairs: ``BEFORE:AFTER``. By default the method's stages if runs have their names, else each run with the first.
        sets: sets with the pictures, as ``PATH`` or ``NAME=PATH``.
        curves: folders with logs, by name of the run.
        knowledge: files with the knowledge of entities.
        trained: training sets; they show which entities were trained on.
        texts: further texts that were trained on.
        lab: whether the models come from the lab's base model, which was trained on the known cards.
        reading: unit and frame of the boxes in sets if the form does not define them.
        cases: maximum number of cases.
        title: headline; '' for one made from the names of the runs.
        seed: seed of the intervals and of the choice of cases.
    """

    runs: Mapping[str, str]
    pairs: Sequence[str] = ()
    sets: Sequence[str] = ()
    curves: Mapping[str, str] = field(default_factory=dict)
    knowledge: Sequence[str] = ()
    trained: Sequence[str] = ()
    texts: Sequence[str] = ()
    lab: bool = False
    reading: Reading = field(default_factory=Reading)
    cases: int = CASES
    title: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if self.cases < 0:
            raise ConfigError("--cases", f"{self.cases} must be at least 0")
        if (self.texts or self.lab) and not self.trained:
            raise ConfigError(
                "--trained",
                "is missing; also name the training sets, since texts do not show which pictures were trained on",
            )


def build_report(settings: ReportSettings) -> Report:
    """Reads the predictions and makes the report; writes no file.

    Raises:
        ConfigError: a setting is wrong.
        DataError: predictions, sets, logs or files cannot be used.
    """
    runs = settings.runs
    pairs = pairs_of(list(settings.pairs), list(runs))
    levels = read_levels(settings.knowledge)
    cases = {
        name: with_knowledge(read_predictions(path), levels)
        for name, path in with_progress(runs.items(), "runs", len(runs))
    }
    context = _context(settings, cases, levels)
    sets = [_named_or_not(text, cases) for text in settings.sets]
    gallery = chosen_gallery(cases, sets, settings.cases, settings.seed, settings.reading)
    given = {name: getattr(settings, name) for name in ("sets", "knowledge", "trained")}
    facts = {name: " ".join(values) for name, values in given.items() if values}
    facts |= {"seed": str(settings.seed), **installed()}
    pairs_given = bool(settings.pairs)
    return make_report(cases, pairs, gallery, context, facts, settings.seed, settings.title, pairs_given=pairs_given)


def write_report(report: Report, out: Path, options: Mapping[str, Any]) -> list[Path]:
    """Writes ``index.html``, ``results.md``, and last ``results.json``, which shows that the report is complete.

    Args:
        report: result of ``build_report``.
        out: folder of the report.
        options: options for the record.

    Raises:
        DataError: the disk cannot be written.
    """
    record = report.record(dict(options), installed())
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / PAGE, report.html())
        atomic_write(out / TABLES, report.markdown())
        atomic_write(out / RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return [out / PAGE, out / RESULTS, out / TABLES]


def named(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Parses ``NAME=PATH`` pairs, in order.

    Raises:
        ConfigError: a text is not such a pair, or a name occurs twice.
    """
    by_name: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not path or not name.strip():
            raise ConfigError(option, f"'{pair}' is not NAME=PATH")
        if name in by_name:
            raise ConfigError(option, f"{name} occurs twice; give each path its own name")
        by_name[name] = path
    return by_name


def installed() -> dict[str, str]:
    """Returns the versions of the packages that the figures depend on."""
    by_name = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_name[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return by_name


def print_tables(report: Report) -> None:
    """Prints differences and accuracies with their intervals."""
    console = Console()
    for section in report.sections:
        if section.anchor in IN_TERMINAL:
            console.print(f"\n[bold]{section.title}[/bold]")
            for table in section.tables:
                if not table.folded:
                    console.print(terminal_table(table, without=BY_CATEGORY))


def _context(
    settings: ReportSettings, cases: Mapping[str, Sequence[Prediction]], levels: Mapping[str, str]
) -> ReportContext:
    """Reads what the report needs beside the answers: exposure, curves and records of runs."""
    exposure = None
    if settings.trained:
        names = sorted({case.entity for some in cases.values() for case in some if case.entity})
        exposure = exposure_of(names, settings.trained, settings.texts, settings.lab, settings.reading)
    records = {name: record for name, path in settings.runs.items() if (record := read_record(path))}
    return ReportContext(
        levels, exposure, {name: read_curves(folder) for name, folder in settings.curves.items()}, records
    )


def _named_or_not(text: str, cases: Mapping[str, Sequence[Prediction]]) -> tuple[str, str]:
    """Returns name and path of a set. The text before "=" is a name only if a prediction has it as its set."""
    name, equals, path = text.partition("=")
    known = {case.set for some in cases.values() for case in some}
    if equals and name in known and path:
        return name, path
    if equals and not Path(text).exists():
        names = ", ".join(sorted(known - {""})) or "none"
        raise ConfigError("--set", f"'{name}' is not a set of these runs; they have {names}")
    return "", text
