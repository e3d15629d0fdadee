"""``kvg-data probe``: measures how well a model knows each entity of a project."""

from __future__ import annotations

import argparse
import logging

log = logging.getLogger(__name__)
_MAX_WARNINGS = 20  # unreadable pictures that are listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML) that has been scanned, with a section `probe`")


def run(args: argparse.Namespace) -> int:
    """Runs the probe and writes the accuracy of each entity.

    Raises:
        ConfigError: the project file is wrong.
        DataError: the project has not been scanned, there is no question, or the model stopped answering.
    """
    from kvg.pipeline.probe import KNOWLEDGE, PAGE, RECORD, print_levels, probe
    from kvg.pipeline.settings.project import load_project

    project = load_project(args.project)
    result = probe(project)
    if result is None:
        print(f"{project.out / RECORD} is as it would be made; nothing to do")
        return 0
    if result.alone:
        names = ", ".join(result.alone[:5])
        print(f"{len(result.alone)} entities are alone in their category and cannot be probed: {names}")
    print_levels(result.scores)
    for reason in list(dict.fromkeys(result.lost))[:_MAX_WARNINGS]:
        log.warning("skipped: %s", reason)
    print(f"{len(result.scores)} entities in {result.out / KNOWLEDGE}, and to look at in {result.out / PAGE}")
    if result.lost:
        print(f"{len(result.lost)} questions were skipped because their pictures cannot be read")
    if wrong := sum(score.unparsed + score.unanswered for score in result.scores):
        print(f"{wrong} of {sum(score.num for score in result.scores)} answers named no option and count as wrong")
    print(result.usage)
    return 0
