"""Makes the report of one run or a comparison: index.html, results.json, results.md, and tables in the terminal."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from kvg.errors import ConfigError
from kvg.evaluation.diagnostics.rollouts import rollout_figures
from kvg.evaluation.figures.exposure import exposure_of
from kvg.evaluation.figures.levels import read_levels
from kvg.evaluation.records.prediction import Prediction, read_predictions, with_truth
from kvg.formats.rollout_files import read_rollouts, rollout_files
from kvg.formats.written_boxes import Reading
from kvg.report.curves import log_files, read_curves
from kvg.report.pairs import pairs_of
from kvg.report.pictures import PictureRequest, read_pictures
from kvg.report.report import Report, chosen_gallery, make_report
from kvg.report.results import ReportContext, read_record, with_knowledge
from kvg.report.rollout_section import RolloutView, RunRollouts, choose_rollouts
from kvg.report.sections import BY_CATEGORY
from kvg.report.tables import terminal_table
from kvg.runs.folder import EXPORT, LOGS
from kvg.work.files import atomic_write, disk_errors
from kvg.work.progress import with_progress

PACKAGES: Final = ("kvg", "torch", "lightning", "transformers")
PAGE, RESULTS, TABLES = "index.html", "results.json", "results.md"
CASES: Final = 120
ROLLOUTS: Final = 320
IN_TERMINAL: Final = ("differences", "accuracy", "choice", "artifacts")  # anchors of the sections that are printed


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report.

    Attributes:
        runs: folders with ``predictions.jsonl``, or such files, by name; empty for a report of trainings only.
        pairs: ``BEFORE:AFTER``. By default the method's stages if runs have their names, else each run with the first.
        sets: sets with the pictures, as ``PATH`` or ``NAME=PATH``.
        curves: folders of trainings, with logs and rollouts, by name of the run. By default those that the runs'
            ``predictions.json`` name, if they are here.
        knowledge: files with the knowledge of entities.
        trained: training sets; they show which entities were trained on.
        texts: further texts that were trained on.
        lab: whether the models come from the lab's base model, which was trained on the known cards.
        reading: unit and frame of the boxes in sets if the form does not define them.
        cases: maximum number of cases.
        rollouts: maximum number of rollouts of each training.
        title: headline; '' for one made from the names of the runs.
        seed: seed of the intervals and of the choice of cases.
        links: other pages for the menu, by title; addresses as seen from the page.
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
    rollouts: int = ROLLOUTS
    title: str = ""
    seed: int = 0
    links: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        for option, number in (("--cases", self.cases), ("--rollouts", self.rollouts)):
            if number < 0:
                raise ConfigError(option, f"{number} must be at least 0")
        if not self.runs and not self.curves:
            raise ConfigError("--runs", "is missing; name a run, or trainings by --curves")
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
    pairs = pairs_of(list(settings.pairs), list(runs)) if runs else []
    levels = read_levels(settings.knowledge)
    cases = {
        name: with_knowledge(with_truth(read_predictions(path), path), levels)
        for name, path in (with_progress(runs.items(), "runs", len(runs)) if runs else ())
    }
    context = _context(settings, cases, levels)
    sets = [_named_or_not(text, cases) for text in settings.sets]
    rollouts = _rollouts(settings, context)
    gallery = chosen_gallery(cases, sets, settings.cases, settings.seed, settings.reading)
    given = {name: getattr(settings, name) for name in ("sets", "knowledge", "trained")}
    facts = {name: " ".join(values) for name, values in given.items() if values}
    facts |= {"seed": str(settings.seed), **installed()}
    pairs_given = bool(settings.pairs)
    made = make_report(cases, pairs, gallery, context, facts, settings.seed, settings.title, pairs_given, rollouts)
    return replace(made, links=settings.links)


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
    if settings.trained and cases:
        names = sorted({case.entity for some in cases.values() for case in some if case.entity})
        exposure = exposure_of(names, settings.trained, settings.texts, settings.lab, settings.reading)
    records = {name: record for name, path in settings.runs.items() if (record := read_record(path))}
    trainings = {**_trainings(records), **settings.curves}
    return ReportContext(
        levels, exposure, {name: read_curves(folder) for name, folder in trainings.items()}, records, trainings
    )


def _trainings(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The folders of trainings whose exports or checkpoints were evaluated, by run, where they have logs."""
    folders = {}
    for name, record in records.items():
        checkpoint, saved = (Path(str(record.get(key) or "")) for key in ("checkpoint", "ckpt_path"))
        places = [place for place in saved.parents if (place / LOGS).is_dir()]
        places += [checkpoint.parent] if checkpoint.name == EXPORT and not saved.name else []
        if places and log_files(places[0]):
            folders[name] = str(places[0])
    return folders


def _rollouts(settings: ReportSettings, context: ReportContext) -> RolloutView:
    """Reads the rollouts of trainings, and the pictures of those that are shown."""
    runs = {}
    for name, folder in context.trainings.items():
        if rollout_files(Path(folder)):
            records = list(read_rollouts(Path(folder)))
            figures = rollout_figures(records, settings.seed)
            runs[name] = RunRollouts(
                figures=figures, records=choose_rollouts(records, settings.rollouts, settings.seed)
            )
    sets = [("", path) for path in (*settings.trained, *(_path_of(text) for text in settings.sets))]
    requests = [
        PictureRequest(image, key, image=image)
        for image, key in {(one.image, one.key) for own in runs.values() for one in own["records"]}
    ]
    if not sets or not requests:
        return RolloutView(runs)
    return RolloutView(runs, read_pictures(sets, requests, settings.reading, required=False).by_case)


def _path_of(text: str) -> str:
    return text if Path(text).exists() else text.partition("=")[2]


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
