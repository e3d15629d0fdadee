"""``kvg-data filter``: keeps the samples that a stage-1 model sometimes gets right."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kvg.errors import ConfigError

if TYPE_CHECKING:
    from kvg.pipeline.filter import FilterResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add = parser.add_argument
    add("project", nargs="?", help="project file: its `filter` section holds these options by name")
    add("--set", dest="sets", action="append", help="only this set of the project; may be repeated")
    add("--in", dest="source", help="instead: folder of shards, or a published file")
    add("--out", help="with --in: folder for the kept samples")
    add("--overwrite", action="store_true", help="replace a set that is already there")
    add("--checkpoint", help="the stage-1 model: a Hugging Face folder, or lab")
    add(
        "--config", "--strategy", dest="config", action="append", default=[],
        help="overlay with a stage, a backbone or a strategy, such as configs/strategy/ddp.yaml; may be given again, "
        "and is merged as by `kvg -c`. What concerns training alone is passed over",
    )  # fmt: skip
    add("--asker", help="YAML with {class_path, init_args} of what answers instead, such as a server")
    add("--codec", choices=("relative", "json", "absolute"), help="how answers write boxes (default: the backbone's)")
    add("--min-pixels", type=int, default=56 * 56, help="area that --asker enlarges pictures to")
    add("--max-pixels", type=int, help="area that --asker shrinks pictures to; for absolute boxes")
    add("--samples", type=int, default=4, help="answers per sample (default 4)")
    add("--temperature", type=float, help="of the answers (default 1)")
    add("--iou", type=float, default=0.5, help="an answer with at least this IoU is right (default 0.5)")
    add("--keep-min", type=int, default=1, help="right answers a kept sample has at least (default 1)")
    add("--keep-max", type=int, help="and at most (default: one less than --samples)")
    add("--batch-size", type=int, help="prompts at once (default 64)")
    add("--mode", default="think", help="prompt mode (default think)")
    add("--max-new-tokens", type=int, help="longest answer (default 256)")
    add("--limit", type=int, help="try only the first so many samples")
    add("--seed", type=int, help="of the answers (default 0)")
    add("--samples-per-shard", type=int, default=500, help="of every shard but the last (default 500)")


def run(args: argparse.Namespace) -> int:
    """Tries every sample and writes those that are neither too easy nor too hard.

    Raises:
        ConfigError: an option cannot work.
        DataError: the input cannot be used, or no sample is kept.
    """
    if bool(args.project) == bool(args.source):
        raise ConfigError("project", "give a project file, or --in and --out")
    if args.project:
        return _run_project(args)
    if not args.out:
        raise ConfigError("--out", "is needed with --in")
    from kvg.cli.options import named_as_options
    from kvg.pipeline.filter_settings import FilterSettings

    values = {name: value for name, value in vars(args).items() if name in FilterSettings.__dataclass_fields__}
    with named_as_options("filter"):
        settings = FilterSettings(**values)
        client = settings.build_client()
        from kvg.pipeline.filter import filter_set  # imports torch: after the settings have been checked

        result = filter_set(args.source, args.out, settings, args.overwrite, client)
    _print(result)
    return 0


def _run_project(args: argparse.Namespace) -> int:
    from kvg.catalogue.project import load_project
    from kvg.pipeline.filter import filter_set, is_complete
    from kvg.pipeline.filter_settings import FilterSettings
    from kvg.pipeline.project_sets import FILTERED, latest, set_names

    project = load_project(args.project)
    settings = project.settings("filter", FilterSettings).with_seed(project.seed)
    names = set_names(project, args.sets, "filter")
    if len(names) > 1 and settings.overlays:
        raise ConfigError("filter.sets", "are several, and a strategy serves one; name it with --set")
    for name in names:
        source, out = latest(project, name), project.out / FILTERED / name
        if not args.overwrite and is_complete(source, out, settings):
            print(f"{out} is there already")
        else:
            _print(filter_set(source, out, settings, overwrite=True))
    return 0


def _print(result: FilterResult) -> None:
    from rich.console import Console

    Console().print(result.histogram())
    print(result.summary())
