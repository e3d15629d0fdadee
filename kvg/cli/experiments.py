"""``kvg-data experiments``: carries out the questions of configs/sweeps, and writes the page of their results."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.work.cpu import num_cores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("files", nargs="*", help="files of questions (default: those of configs/sweeps)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="measurements by the start of their name")
    parser.add_argument("--out", default="runs/experiments", help="folder of all steps (default runs/experiments)")
    parser.add_argument("--results", default="docs/experiments", help="results and page (default docs/experiments)")
    parser.add_argument("--jobs", type=int, default=min(4, num_cores()), help="cores (default: all, at most 4)")
    parser.add_argument("--take", metavar="RUN", help="take over what a finished demo has made by the same commands")
    parser.add_argument("--fast", action="store_true", help="a few steps on a few composites, to see that it runs")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what is left and how long it may take, run nothing"
    )
    parser.add_argument("--page", action="store_true", help="only write the page")


def run(args: argparse.Namespace) -> int:
    """Carries out what has no result yet, then writes the page.

    Returns:
        0, or 1 if a step failed.

    Raises:
        KVGError: a file is wrong, or a result cannot be read or written.
    """
    from rich.console import Console

    from kvg.config.overlay_files import shipped
    from kvg.workflow.experiments.page import write_page
    from kvg.workflow.experiments.plan import measurements
    from kvg.workflow.experiments.question import FOLDER, load_question, question_files
    from kvg.workflow.experiments.result import ResultFolder
    from kvg.workflow.experiments.run import Experiments
    from kvg.workflow.experiments.step_library import load_library

    library, out, console = load_library(), Path(args.out), Console()
    library = library.quick() if args.fast else library
    paths = [Path(path) for path in args.files] or question_files(shipped(FOLDER))
    questions = {path.stem: load_question(path) for path in paths}
    planned = [one for name, question in questions.items() for one in measurements(name, question, library, out)]
    experiments = Experiments(questions, planned, out, ResultFolder(Path(args.results)))
    if args.take:
        print("taken over:", ", ".join(experiments.take(Path(args.take))) or "nothing")
    if args.dry_run:
        experiments.show()
        return 0
    code = 0 if args.page else experiments.carry_out(experiments.left(args.only), args.jobs, console)
    print(write_page(experiments, Path(args.results)))
    return code
