"""Carries out the measurements that have no result yet, and takes over what a finished demo has made."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from kvg.errors import ConfigError, DataError
from kvg.records import own_record
from kvg.work.job import Job
from kvg.workflow.dag import Step, StepRunner, carry_out
from kvg.workflow.experiments.plan import Measurement
from kvg.workflow.experiments.question import Question
from kvg.workflow.experiments.result import ResultFolder
from kvg.workflow.experiments.step_library import Made
from kvg.workflow.step_logs import clock

_PLACES: Final = (  # of results in the folder of a demo
    *(f"data/{name}" for name in ("plain", "train", "cards.jsonl", "val", "test", "hard", "filtered")),
    *("cot_sft", "direct_sft", "grpo", "test/base", "test/direct_sft", "test/cot_sft"),
)


class Experiments:
    """The questions, and the folders of their steps and results.

    Args:
        questions: by name.
        measurements: of all questions, in the order in which they are carried out.
        out: folder of all steps.
        results: the results.
    """

    def __init__(
        self, questions: Mapping[str, Question], measurements: Sequence[Measurement], out: Path, results: ResultFolder
    ) -> None:
        self.questions, self.measurements, self.out, self.results = questions, measurements, out, results

    def left(self, only: Sequence[str] = ()) -> list[Measurement]:
        """Returns the measurements without a result; one that several questions share is in it once.

        Args:
            only: starts of names; empty for all.

        Raises:
            ConfigError: one of them begins no name.
        """
        for start in only:
            if not any(one.name.startswith(start) for one in self.measurements):
                raise ConfigError("--only", f"'{start}' begins no name of a measurement; --dry-run prints them")
        named = [one for one in self.measurements if not only or one.name.startswith(tuple(only))]
        missing = {one.made.identity: one for one in reversed(named) if self.results.get(one) is None}
        return [one for one in named if missing.get(one.made.identity) is one]

    def carry_out(self, chosen: Sequence[Measurement], cores: int, console: Console) -> int:
        """Runs measurements, one after another or several at once; writes the result of each when it is complete.

        Returns:
            0, or 1 if a step failed.

        Raises:
            DataError: a result cannot be written.
        """
        by_step = {one.made.name: one for one in chosen}

        def finished(step: Step) -> None:
            if step.name in by_step:
                measurement = by_step[step.name]
                result = self.results.write(measurement, tuple(self.questions[measurement.question].curves))
                figures = ", ".join(f"{name} {value:.3f}" for name, value in list(result.figures.items())[:3])
                console.print(f"  {measurement.name}: {figures}")
            if step.command[:2] == ("kvg", "fit"):
                for path in step.out.rglob("*.ckpt"):  # its export is all that is used from here on
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

        runner = StepRunner(self.out, cores, console, keep_going=True, finished=finished)
        steps = list({made.name: made.step for one in chosen for made in one.made.chain()}.values())
        for step in runner.complete(steps):
            if step.name in by_step:
                finished(step)
        complete = carry_out(runner, steps)
        return 0 if complete and not runner.failures else 1

    def show(self) -> None:
        """Prints all measurements, which of them have a result, and how long the others may take."""
        durations = self._durations()
        left, total = {one.made.identity for one in self.left()}, 0.0
        counted: set[str] = set()
        unknown: dict[str, int] = {}  # kinds of steps whose duration nobody has measured
        for one in self.measurements:
            seconds = 0.0
            for made in one.made.chain() if one.made.identity in left else ():
                if made.name not in counted:
                    kind = made.name.rpartition("-")[0]
                    seconds += durations.get(kind, 0.0)
                    if kind not in durations:
                        unknown[kind] = unknown.get(kind, 0) + 1
                    counted.add(made.name)
            total += seconds
            mark = f"{clock(seconds)}" if one.made.identity in left else "done"
            print(f"{mark:>8}  {one.name}")
        hours = f"about {total / 3600:.1f} h of their steps one after another"
        if unknown:
            hours += f", without {', '.join(f'{num} {kind}' for kind, num in unknown.items())}, never run so far"
        print(f"{len(self.measurements)} measurements, {len(left)} without a result; {hours}")

    def _durations(self) -> dict[str, float]:
        """Returns the mean duration of each kind of step, from results and stamps."""
        seconds: dict[str, list[float]] = {}
        known: dict[str, float] = {}
        for one in self.measurements:
            if result := self.results.get(one):
                known |= result.seconds
        for path in (self.out / "stamps").glob("*.json"):
            stamp = own_record(path)
            if "seconds" in stamp:
                known[path.stem] = float(stamp["seconds"])
        for name, value in known.items():
            seconds.setdefault(name.rpartition("-")[0], []).append(value)
        return {kind: sum(values) / len(values) for kind, values in seconds.items()}

    def take(self, run: Path) -> list[str]:
        """Takes over steps that a finished demo has made by the same commands.

        Args:
            run: folder of the demo.

        Returns:
            Names of the steps that were taken over.

        Raises:
            DataError: there is no such run.
        """
        stamps = {path.stem: own_record(path) for path in sorted((run / "stamps").glob("*.json"))}
        if not stamps:
            raise DataError(str(run), "stamps", "is no finished demo; run `kvg-data demo` first, or correct the path")
        by_command = {_plain(str(stamp.get("command")), run): stamp for stamp in stamps.values()}
        taken: dict[str, str] = {}  # folder in the demo by name of the step
        for made in {one.name: one for m in self.measurements for one in m.made.chain()}.values():
            if any(need.name not in taken for need in made.needs):
                continue
            places = {str(need.folder): str(run / taken[need.name]) for need in made.needs}
            for place in _PLACES:
                command = shlex.join(_moved(made.step.command, {**places, str(made.folder): str(run / place)}))
                if _plain(command, run) in by_command and (run / place).exists():
                    stamp = by_command[_plain(command, run)]
                    self._copy(made, run / place, f"{run.name}/{place}", stamp)
                    taken[made.name] = place
                    break
        return sorted(taken)

    def _copy(self, made: Made, source: Path, origin: str, stamp: Mapping[str, object]) -> None:
        if made.folder.exists():
            return
        made.folder.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, made.folder)
        else:
            shutil.copy2(source, made.folder)
        identity = StepRunner.identities_of([one.step for one in made.chain()])[made.name]
        job = Job(self.out / "stamps", f"{made.name}.json", identity)
        job.complete({"command": shlex.join(made.step.command), "seconds": stamp["seconds"], "origin": origin})


def _moved(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    def moved(word: str) -> str:
        for old, new in places.items():
            word = word.replace(old, new)
        return word

    return [moved(word) for word in words]


def _plain(command: str, run: Path) -> str:
    """Returns a command with the folder of its run as it was called, in short."""
    return json.dumps(command.replace(f"{run}/", "RUN/").replace("runs/demo/", "RUN/"))
