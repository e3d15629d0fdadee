"""Runs an experiment: variants by seeds, each trained and asked, and a table that says what is more than luck."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kvg.cli.demo import num_cores

if TYPE_CHECKING:
    from rich.console import Console

    from kvg.workflow.dag import StepRunner
    from kvg.workflow.sweep_config import Experiment
    from kvg.workflow.sweep_plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("experiment", help="file of the experiment (YAML), such as configs/sweeps/reward_gate.yaml")
    parser.add_argument("--dry-run", action="store_true", help="check all settings, print the commands, run none")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="RUN", help="these runs alone, as --dry-run names them"
    )
    jobs = "processes at once (default: one a core, at most 4; give 1 where each run takes all GPUs)"
    parser.add_argument("--jobs", type=int, default=min(4, num_cores()), help=jobs)


def run(args: argparse.Namespace) -> int:
    """Runs what is missing; shows and writes the table once all is there.

    Returns:
        0, or 1 where a run failed.

    Raises:
        KVGError: the experiment cannot be run as it stands, or answers cannot be compared.
    """
    from rich.console import Console

    from kvg.config.overlay_files import shipped_configs
    from kvg.workflow.dag import StepRunner, carry_out
    from kvg.workflow.sweep_config import load_experiment
    from kvg.workflow.sweep_plan import plan

    path = shipped_configs(["-c", args.experiment])[1]
    experiment, console = load_experiment(path), Console()
    with console.status("checking the settings of every variant"):
        made = plan(experiment)
    runner = StepRunner(experiment.out, args.jobs, console)
    chosen = made.steps(args.only)
    if args.dry_run:
        _show_plan(made, runner, experiment, args.only)
        return 0
    if not carry_out(runner, chosen):
        return 1
    num_left = len(made.steps()) - len(runner.complete(made.steps()))
    if num_left:
        console.print(f"{num_left} steps of other runs are left; the table comes with the last of them")
        return 0
    _show_result(experiment, made, Path(path).stem, console)
    return 0


def _show_plan(made: Plan, runner: StepRunner, experiment: Experiment, only: list[str]) -> None:
    """Prints lines that a shell can run as they stand, one after the other."""
    steps, done = made.steps(only), runner.complete(made.steps(only))
    seeds, names = ", ".join(map(str, experiment.seeds)), ", ".join(v.name for v in experiment.variants)
    print(f"# {len(made.runs)} runs in {experiment.out}: variants {names}; seeds {seeds}")
    print(f"# {len(steps)} commands, {len(done)} of them done")
    for step in steps:
        print(f"\n# {step.name}: {step.title}{' (done)' if step in done else ''}\n{shlex.join(step.command)}")


def _show_result(experiment: Experiment, made: Plan, title: str, console: Console) -> None:
    from kvg.report.comparison_tables import comparison_tables, findings
    from kvg.report.tables import terminal_table
    from kvg.workflow.sweep_table import compare_sweep, curve_table, sweep_curves, write_sweep

    comparison, curves = compare_sweep(experiment, made.runs), sweep_curves(experiment, made.runs)
    tables = [*comparison_tables(comparison), *(curve_table(tag, own) for tag, own in curves.items())]
    for table in tables:
        console.print(terminal_table(table))
    for line in [*findings(comparison), *(f"note: {note}" for note in comparison.notes)]:
        console.print(line, markup=False, highlight=False)
    paths = write_sweep(experiment, made.runs, comparison, curves, title)
    print(*paths, sep="   ")
