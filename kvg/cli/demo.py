"""``kvg-data demo``: the whole method end to end in the lab."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from kvg.work.cpu import num_cores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--out", default="runs/demo", help="folder for everything (default runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="of data and training (default 0)")
    parser.add_argument("--fast", action="store_true", help="a few steps on a few composites, to see that it runs")
    parser.add_argument("--base", default="lab", help="the model to begin with: lab, tiny or a folder (default lab)")
    parser.add_argument("--jobs", type=int, default=min(4, num_cores()), help="commands at once (default: one a core)")


def run(args: argparse.Namespace) -> int:
    """Runs every step that is not complete, then shows the table.

    Returns:
        0, or 1 where a step failed.
    """
    from rich.console import Console

    from kvg.workflow.dag import StepRunner, carry_out
    from kvg.workflow.demo import demo_steps
    from kvg.workflow.step_logs import clock

    out, console, start = Path(args.out), Console(), time.monotonic()
    plan = demo_steps(args.fast, out, args.seed, args.base)
    runner = StepRunner(out, args.jobs, console)
    if not carry_out(runner, plan):
        return 1
    sys.stdout.write(runner.log(plan[-1]).read_text("utf-8"))
    console.print(f"\n[bold]{(out / 'index.html').resolve()}[/bold]  after {clock(time.monotonic() - start)}")
    return 0
