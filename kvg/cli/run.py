"""``kvg-data run``: all steps of the data engine for one project file; complete steps are not run again."""

from __future__ import annotations

import argparse

STEPS = ("scan", "box", "probe", "compose", "rationalize", "filter", "shard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--to", choices=STEPS, default="shard", help="the last step (default shard)")


def run(args: argparse.Namespace) -> int:
    """Runs the steps.

    Returns:
        The exit code of the first step that fails, or 0.

    Raises:
        KVGError: the project file is wrong.
    """
    from kvg.workflow.run import run_project

    return run_project(args.project, args.workers, args.to)
