"""``kvg-data box``: predicts missing boxes with a grounding model."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML) that has been scanned")
    parser.add_argument("--review-only", action="store_true", help="predict nothing; only write the review pages again")


def run(args: argparse.Namespace) -> int:
    """Predicts boxes and writes the review pages.

    Raises:
        ConfigError: the project file is wrong.
        DataError: the project has not been scanned, or the model stopped answering.
    """
    from kvg.catalogue.box_rules import BoxSettings
    from kvg.pipeline.box import find_boxes, write_review
    from kvg.pipeline.settings.project import load_project

    project = load_project(args.project)
    project.settings("box", BoxSettings)
    if not args.review_only:
        result = find_boxes(project)
        for line in result.usage:
            print(line)
        counts, refused = result.counts(), result.refused()
        if not result.findings:
            print("every picture has a box: there is nothing to ask about")
        else:
            print(f"{counts['asked']} pictures asked about, {counts['boxed']} boxed in {result.path}")
        if refused:
            rules = ", ".join(f"{rule} {num}" for rule, num in refused.items())
            print(f"{sum(refused.values())} without a box ({rules}), each with its reason there")
    review = write_review(project)
    kinds = "of all kinds" if review.all_kinds else "of models"
    first, *others = review.pages
    print(f"{review.num_boxes} boxes {kinds} to review, {review.num_bad} of them ticked as bad: open {first}")
    if others:
        print(f"and {len(others)} more pages, to {others[-1]}")
    if review.num_lost:
        print(f"{review.num_lost} pictures cannot be opened any more; scan again")
    return 0
