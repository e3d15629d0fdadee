"""Results of measurements: one small JSON each, so that they can be committed and nothing is run twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kvg.config.settings import settings_of
from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.prediction import read_predictions, with_truth
from kvg.records import own_record
from kvg.report.curves import log_files, read_curves
from kvg.shards.revision import revision
from kvg.work.files import atomic_write, disk_errors
from kvg.workflow.experiments.columns import answer_columns, case_columns
from kvg.workflow.experiments.plan import Measurement
from kvg.workflow.experiments.question import EXAM

RESULTS, CASES = "results", "cases"  # folders
EXAM_FILE: Final = "exam.json"
_NOT_FIGURES: Final = ("checkpoint", "num", "seed")


@dataclass(frozen=True)
class Result:
    """The result of a measurement.

    Attributes:
        name: name of the measurement that wrote it.
        identity: digest of all commands that it is made of.
        settings: digest of the contents of their configs.
        command: the command that measured.
        revision: revision of the code.
        seconds: duration of each step that it is made of, where it is known.
        cases: digest of the cases; '' for an exam.
        columns: one character for each case, see ``kvg.workflow.experiments.columns``.
        figures: shares by name.
        curves: logged curves of its trainings: step and value, by name of the training and tag.
        origin: folder of the finished run that a step was taken from, by step.
    """

    name: str
    identity: str
    settings: str
    command: str
    revision: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    cases: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)


class ResultFolder:
    """All results, and the cases that they answer.

    Args:
        folder: folder of the results, such as ``docs/experiments``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_identity = {result.identity: result for _, result in self._read()}
        self._cases: dict[str, dict[str, Any]] = {}

    def get(self, measurement: Measurement) -> Result | None:
        """Returns the result of a measurement, also where another question has measured it; None if there is none."""
        return self._by_identity.get(measurement.made.identity)

    def cases(self, digest: str) -> dict[str, Any]:
        """Returns the cases of a result, see ``case_columns``.

        Raises:
            DataError: their file is missing.
        """
        if digest not in self._cases:
            path = self.folder / CASES / f"{digest}.json"
            record = own_record(path)
            if record.get("digest") != digest:
                raise DataError(str(path), "digest", "is missing or another; restore it, or remove the results with it")
            self._cases[digest] = record
        return self._cases[digest]

    def write(self, measurement: Measurement, tags: tuple[str, ...]) -> Result:
        """Writes the result of a complete measurement.

        Args:
            measurement: its step is complete.
            tags: tags of curves to keep.

        Raises:
            DataError: its output cannot be read, or the disk cannot be written.
        """
        made = measurement.made
        chain = {one.name: one for one in made.chain()}
        stamps = {
            name: own_record(one.step.out.parent.parent / "stamps" / f"{name}.json") for name, one in chain.items()
        }
        columns, figures, digest = dict[str, str](), dict[str, float](), ""
        if measurement.kind == EXAM:
            record = own_record(made.folder / EXAM_FILE)
            figures = {name: float(value) for name, value in record.items() if name not in _NOT_FIGURES}
        else:
            cases = with_truth(read_predictions(made.folder), made.folder)
            columns, of_cases = answer_columns(cases), case_columns(cases)
            digest = of_cases["digest"]
            figures = {"right": sum(case.correct for case in cases) / len(cases)}
            self._write(self.folder / CASES / f"{digest}.json", of_cases)
        result = Result(
            name=measurement.name,
            identity=made.identity,
            settings=made.settings,
            command=" ".join(made.step.command),
            revision=revision(),
            seconds={name: stamp["seconds"] for name, stamp in stamps.items() if "seconds" in stamp},
            cases=digest,
            columns=columns,
            figures=figures,
            curves=_curves(measurement, tags),
            origin={name: stamp["origin"] for name, stamp in stamps.items() if "origin" in stamp},
        )
        self._write(self.folder / RESULTS / f"{measurement.name}.json", vars(result))
        self._by_identity[result.identity] = result
        return result

    def _write(self, path: Path, record: Mapping[str, Any]) -> None:
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _read(self) -> Iterator[tuple[Path, Result]]:
        for path in sorted((self.folder / RESULTS).rglob("*.json")):
            try:
                yield path, settings_of(Result, json.loads(path.read_text("utf-8")))
            except (ValueError, ConfigError) as error:
                raise DataError(str(path), "result", f"is damaged ({error}); restore or remove it") from error


def _curves(measurement: Measurement, tags: tuple[str, ...]) -> dict[str, dict[str, list[list[float]]]]:
    kept: dict[str, dict[str, list[list[float]]]] = {}
    for training in measurement.trainings:
        if log_files(training.folder):
            logged = read_curves(training.folder)
            kept[training.title] = {
                tag: [[step, round(value, 5)] for step, value in logged[tag]] for tag in tags if tag in logged
            }
    return kept
