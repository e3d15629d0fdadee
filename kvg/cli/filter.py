"""``kvg-data filter``: keeps the samples that a stage-1 model sometimes gets right."""

from __future__ import annotations

import argparse

from kvg.errors import ConfigError

_HELP = {  # of the options that have no choices
    "checkpoint": (str, None, "the stage-1 model: a Hugging Face folder, or lab"),
    "client": (str, None, "YAML with {class_path, init_args} of what answers instead, such as a server"),
    "min-pixels": (int, 56 * 56, "area that --client enlarges pictures to"),
    "max-pixels": (int, None, "area that --client shrinks pictures to; for absolute boxes"),
    "samples": (int, 4, "answers per sample (default 4)"),
    "temperature": (float, None, "of the answers (default 1)"),
    "iou": (float, 0.5, "an answer with at least this IoU is right (default 0.5)"),
    "keep-min": (int, 1, "right answers a kept sample has at least (default 1)"),
    "keep-max": (int, None, "and at most (default: one less than --samples)"),
    "batch-size": (int, None, "prompts at once (default 64)"),
    "mode": (str, "think", "prompt mode (default think)"),
    "max-new-tokens": (int, None, "longest answer (default 256)"),
    "limit": (int, None, "try only the first so many samples"),
    "seed": (int, None, "of the answers (default 0)"),
    "samples-per-shard": (int, 500, "of every shard but the last (default 500)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add = parser.add_argument
    add("project", nargs="?", help="project file: its `filter` section holds these options by name")
    add("--set", dest="sets", action="append", help="only this set of the project; may be repeated")
    add("--in", dest="source", help="instead: folder of shards, or a published file")
    add("--out", help="with --in: folder for the kept samples")
    add("--overwrite", action="store_true", help="replace a set that is already there")
    text = "overlay with a stage, backbone or strategy, merged as by `kvg -c`; training settings are ignored"
    add("--config", "--strategy", dest="config", action="append", default=[], help=text)
    add("--codec", choices=("relative", "json", "absolute"), help="how answers write boxes (default: the backbone's)")
    for name, (kind, default, text) in _HELP.items():
        add(f"--{name}", type=kind, default=default, help=text)


def run(args: argparse.Namespace) -> int:
    """Samples answers for every sample and writes the samples that are neither too easy nor too hard."""
    if bool(args.project) == bool(args.source) or (args.source and not args.out):
        raise ConfigError("project", "give a project file, or --in and --out")
    if args.project:
        return _run_project(args)
    from kvg.cli.options import named_as_options
    from kvg.pipeline.settings.filter import FilterSettings

    values = {name: value for name, value in vars(args).items() if name in FilterSettings.__dataclass_fields__}
    with named_as_options("filter"):
        settings = FilterSettings(**values)
        client = settings.build_client()
        from kvg.pipeline.filter import filter_set  # imports torch: after the settings have been checked

        result = filter_set(args.source, args.out, settings, args.overwrite, client)
    result.show()
    return 0


def _run_project(args: argparse.Namespace) -> int:
    from kvg.pipeline.filter import filter_set, is_complete
    from kvg.pipeline.project_sets import FILTERED, latest, set_names
    from kvg.pipeline.settings.filter import FilterSettings
    from kvg.pipeline.settings.project import load_project

    project = load_project(args.project)
    settings = project.settings("filter", FilterSettings).with_seed(project.seed)
    names = set_names(project, args.sets, "filter")
    if len(names) > 1 and settings.overlays:
        raise ConfigError("filter.sets", "are several, but a strategy works with one set; name it with --set")
    for name in names:
        source, out = latest(project, name), project.out / FILTERED / name
        if not args.overwrite and is_complete(source, out, settings):
            print(f"{out} is there already")
        else:
            filter_set(source, out, settings, overwrite=True).show()
    return 0
