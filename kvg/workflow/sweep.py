"""Prints the plan and the result of a sweep."""

from __future__ import annotations

import shlex

from rich.console import Console

from kvg.report.comparison_tables import comparison_tables, findings
from kvg.report.tables import terminal_table
from kvg.workflow.dag import StepRunner
from kvg.workflow.sweep_config import Experiment
from kvg.workflow.sweep_plan import Plan
from kvg.workflow.sweep_table import compare_sweep, curve_table, sweep_curves, write_sweep


def show_plan(made: Plan, runner: StepRunner, experiment: Experiment, only: list[str]) -> None:
    """Prints the plan as a shell script."""
    steps, done = made.steps(only), runner.complete(made.steps(only))
    seeds, names = ", ".join(map(str, experiment.seeds)), ", ".join(v.name for v in experiment.variants)
    print(f"# {len(made.runs)} runs in {experiment.out}: variants {names}; seeds {seeds}")
    print(f"# {len(steps)} commands, {len(done)} of them done")
    for step in steps:
        print(f"\n# {step.name}: {step.title}{' (done)' if step in done else ''}\n{shlex.join(step.command)}")


def show_result(experiment: Experiment, made: Plan, title: str, console: Console) -> None:
    """Prints tables and findings, and writes them."""
    comparison, curves = compare_sweep(experiment, made.runs), sweep_curves(experiment, made.runs)
    tables = [*comparison_tables(comparison), *(curve_table(tag, own) for tag, own in curves.items())]
    for table in tables:
        console.print(terminal_table(table))
    for line in [*findings(comparison), *(f"note: {note}" for note in comparison.notes)]:
        console.print(line, markup=False, highlight=False)
    paths = write_sweep(experiment, made.runs, comparison, curves, title)
    print(*paths, sep="   ")
