"""``kvg-data sweep``: trains and evaluates variants with several seeds, and shows a table of differences."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.work.cpu import num_cores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("experiment", help="file of the experiment (YAML), such as configs/sweeps/reward_gate.yaml")
    parser.add_argument("--dry-run", action="store_true", help="check all settings, print the commands, run none")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="only these runs, as named by --dry-run")
    jobs = "processes at once (default: one a core, at most 4; give 1 where each run takes all GPUs)"
    parser.add_argument("--jobs", type=int, default=min(4, num_cores()), help=jobs)


def run(args: argparse.Namespace) -> int:
    """Runs the missing steps; shows and writes the table when all steps are complete.

    Returns:
        0, or 1 if a run failed.

    Raises:
        KVGError: the experiment is invalid, or answers cannot be compared.
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
    from kvg.workflow.sweep import show_plan, show_result  # after the settings have been checked: it imports torch

    runner = StepRunner(experiment.out, args.jobs, console)
    chosen = made.steps(args.only)
    if args.dry_run:
        show_plan(made, runner, experiment, args.only)
        return 0
    if not carry_out(runner, chosen):
        return 1
    num_left = len(made.steps()) - len(runner.complete(made.steps()))
    if num_left:
        console.print(f"{num_left} steps of other runs are left; the table comes with the last of them")
        return 0
    show_result(experiment, made, Path(path).stem, console)
    return 0
