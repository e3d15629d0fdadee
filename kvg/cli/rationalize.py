"""``kvg-data rationalize``: writes rationales for composites."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", nargs="?", help="project file: its `rationalize` section says who writes")
    parser.add_argument("--set", dest="names", action="append", help="only this set of the project; may be repeated")
    parser.add_argument("--in", dest="source", help="instead: folder of shards, or a published file")
    parser.add_argument("--out", help="with --in: folder for the new shards")
    parser.add_argument(
        "--teacher", help="with --in: YAML with `teacher`, and perhaps `codec`, `rules`, `max_attempts`"
    )
    parser.add_argument("--writer", choices=("cards", "teacher"), help="with --in: who writes (default: as --teacher)")
    parser.add_argument("--min-facts", type=int, help="with --in: set samples aside with an object of fewer facts")
    changed = "with --in: change the rationales on purpose: other_entity, no_traits, filler, dropped, none, shuffled"
    parser.add_argument("--variant", help=changed)
    parser.add_argument("--seed", type=int, help="with --variant: decides its choices (default 0)")
    parser.add_argument("--answers", help="with --in: predictions of a model; keep the rationales of its right answers")
    parser.add_argument("--workers", type=int, default=1, help="processes of the card writer (default 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


def run(args: argparse.Namespace) -> int:
    """Writes the set, or the sets of a project.

    Raises:
        ConfigError: a setting cannot work.
        DataError: the input cannot be used, or no rationale could be written.
    """
    from kvg.config.settings import in_file, read_yaml, settings_of
    from kvg.pipeline.rationalize import rationalize
    from kvg.pipeline.settings.rationalize import RationaleSettings

    if bool(args.project) == bool(args.source):
        raise ConfigError("project", "give a project file, or --in and --out")
    if args.project:
        return _run_project(args)
    if not args.out:
        raise ConfigError("--out", "is needed with --in")
    values = read_yaml(args.teacher) if args.teacher else {}
    values["writer"] = args.writer or ("teacher" if args.teacher else "cards")
    own = {name: getattr(args, name) for name in ("min_facts", "variant", "seed", "answers")}
    values |= {name: value for name, value in own.items() if value is not None}
    with in_file(args.teacher or ""):
        settings = settings_of(RationaleSettings, values, "rationalize")
        settings.check_classes()
    print(rationalize(args.source, args.out, settings, args.workers, args.overwrite).summary())
    return 0


def _run_project(args: argparse.Namespace) -> int:
    from kvg.config.settings import in_file
    from kvg.pipeline.project_sets import COMPOSITES, RATIONALES, set_names
    from kvg.pipeline.rationalize import rationalize, rationalize_job
    from kvg.pipeline.settings.project import load_project
    from kvg.pipeline.settings.rationalize import RationaleSettings

    project = load_project(args.project)
    settings = project.settings("rationalize", RationaleSettings)
    with in_file(project.path):
        settings.check_classes()
    for name in set_names(project, args.names, "rationalize"):
        source, out = project.out / COMPOSITES / name, Path(project.out / RATIONALES / name)
        if not args.overwrite and rationalize_job(source, out, settings).is_complete():
            print(f"{out} is there already")
        else:
            print(rationalize(source, out, settings, args.workers, overwrite=True).summary())
    return 0
