"""Lets a stage-1 model answer each sample several times, and keeps what it sometimes gets right (paper section 4.2).

What is always right teaches nothing, and what is never right gives no reward to learn from: in both cases all
advantages of a group are 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kvg.errors import ConfigError
from kvg.inference.local_settings import BACKBONE_CLASS

if TYPE_CHECKING:
    from kvg.inference.request import Asker
    from kvg.pipeline.filter import Difficulty

CODECS = ("relative", "json", "absolute")
LOCAL = {"temperature": 1.0, "max_new_tokens": 256, "batch_size": 64, "seed": 0}  # defaults where the model runs here
_NOTED = (
    "source", "checkpoint", "asker", "codec", "samples", "temperature", "iou", "keep_min", "keep_max",
    "mode", "max_new_tokens", "limit", "seed",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", nargs="?", help="project file: its `filter` section holds these options by name")
    parser.add_argument("--set", dest="names", action="append", help="only this set of the project; may be repeated")
    parser.add_argument("--in", dest="source", help="instead: folder of shards, or a published file")
    parser.add_argument("--out", help="with --in: folder for the kept samples")
    parser.add_argument("--checkpoint", help="the stage-1 model: a Hugging Face folder, or lab")
    parser.add_argument(
        "--config", "--strategy", dest="config", action="append", default=[],
        help="overlay with a stage, a backbone or a strategy, such as configs/strategy/ddp.yaml; may be given again, "
        "and is merged as by `kvg -c`. What concerns training alone is passed over",
    )  # fmt: skip
    parser.add_argument("--asker", help="YAML with {class_path, init_args} of what answers instead, such as a server")
    parser.add_argument("--codec", choices=CODECS, help="how answers write boxes (default: as the backbone does)")
    parser.add_argument("--min-pixels", type=int, default=56 * 56, help="area that --asker enlarges pictures to")
    parser.add_argument("--max-pixels", type=int, help="area that --asker shrinks pictures to; for absolute boxes")
    parser.add_argument("--samples", type=int, default=4, help="answers per sample (default 4)")
    parser.add_argument("--temperature", type=float, help="of the answers (default 1)")
    parser.add_argument(
        "--iou", type=float, default=0.5, help="an answer with at least this IoU is right (default 0.5)"
    )
    parser.add_argument("--keep-min", type=int, default=1, help="right answers a kept sample has at least (default 1)")
    parser.add_argument("--keep-max", type=int, help="and at most (default: one less than --samples)")
    parser.add_argument("--batch-size", type=int, help="prompts at once (default 64)")
    parser.add_argument("--mode", default="think", help="prompt mode (default think)")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer (default 256)")
    parser.add_argument("--limit", type=int, help="try only the first so many samples")
    parser.add_argument("--seed", type=int, help="of the answers (default 0)")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="of every shard but the last (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


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
    _filter(args, *settle(args))
    return 0


def settle(args: argparse.Namespace) -> tuple[Difficulty, dict[str, Any]]:
    """Fills in what was left out, and checks it.

    Returns:
        What is kept, and all settings for the record.

    Raises:
        ConfigError: an option cannot work.
    """
    from kvg.pipeline.filter import Difficulty

    difficulty = Difficulty(
        samples=args.samples,
        iou=args.iou,
        keep_min=args.keep_min,
        keep_max=args.keep_max,
        mode=args.mode,
        limit=args.limit,
        samples_per_shard=args.samples_per_shard,
    )
    args.keep_max = difficulty.most
    fill_options(args)
    return difficulty, {name: value for name, value in vars(args).items() if name in _NOTED}


def _filter(args: argparse.Namespace, difficulty: Difficulty, noted: Mapping[str, Any]) -> None:
    from kvg.pipeline.filter import BoxReader, filter_set

    asker = build_asker(args)
    reader = BoxReader(asker, args.codec, args.min_pixels, args.max_pixels)
    filter_set(args.source, Path(args.out), asker, reader, difficulty, noted, args.overwrite)


def _run_project(args: argparse.Namespace) -> int:
    from kvg.catalogue.project import load_project
    from kvg.config.settings import in_file
    from kvg.pipeline.filter import is_finished
    from kvg.pipeline.project_sets import FILTERED, latest, set_names

    project = load_project(args.project)
    with in_file(project.path):
        options = project_options(project.later.get("filter", {}), project.seed)
    names = set_names(project, args.names, "filter")
    if len(names) > 1 and options.config:
        raise ConfigError("filter.sets", "are several, and a strategy serves one; name it with --set")
    for name in names:
        options.source, options.out, options.overwrite = str(latest(project, name)), project.out / FILTERED / name, True
        difficulty, noted = settle_section(options, project.path)
        if is_finished(options.source, options.out, noted) and not args.overwrite:
            print(f"{options.out} is there already")
        else:
            _filter(options, difficulty, noted)
    return 0


def project_options(section: Mapping[str, Any], seed: int) -> argparse.Namespace:
    """The options of a project's section; what it leaves out has its default.

    Args:
        section: options by name, with ``_`` for ``-``; ``sets`` is not one of them.
        seed: of the project.

    Raises:
        ConfigError: an option is unknown, or of another type.
    """
    from kvg.config.value_types import checked

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([])
    kinds = _option_kinds(parser)
    for key, value in section.items():
        if key not in kinds:
            raise ConfigError(f"filter.{key}", f"is unknown; choose from {', '.join(sorted(kinds))}")
        checked(value, kinds[key], f"filter.{key}")
        setattr(options, key, value)
    if not options.asker and options.seed is None:
        options.seed = seed
    options.config = [options.config] if isinstance(options.config, str) else options.config
    return options


def settle_section(options: argparse.Namespace, path: str) -> tuple[Difficulty, dict[str, Any]]:
    """As ``settle``, of the options of a project's section: errors call them as the file does.

    Raises:
        ConfigError: an option cannot work.
    """
    from kvg.config.settings import in_file

    with in_file(path):
        try:
            return settle(options)
        except ConfigError as error:
            if not error.field.startswith("--"):
                raise
            name = error.field.replace("--", "").replace("-", "_")
            raise ConfigError(f"filter.{name}", error.remedy) from error


def _option_kinds(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The types of the options in a project's section, by name."""
    kinds: dict[str, Any] = {"sets": Sequence[str] | None}
    for action in parser._actions:  # argparse has no public list of them
        if action.dest in ("help", "project", "names", "source", "out", "overwrite"):
            continue
        kind: Any = Literal[tuple(action.choices)] if action.choices else action.type or str
        kind = str | Sequence[str] if isinstance(action.default, list) else kind
        kinds[action.dest] = kind | None if action.default is None else kind
    return kinds


def fill_options(args: argparse.Namespace) -> None:
    """Fills in what was left out, and checks what goes together.

    Raises:
        ConfigError: an option cannot work.
    """
    if args.asker:
        for name in (*LOCAL, "checkpoint", "config"):
            if getattr(args, name) not in (None, []):
                raise ConfigError(f"--{name.replace('_', '-')}", "does not go with --asker; set it in that file")
        return
    for name, value in LOCAL.items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    for name in ("batch_size", "max_new_tokens"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}", f"{getattr(args, name)} must be at least 1")
    if args.samples > 1 and args.temperature <= 0:
        raise ConfigError("--temperature", "must be above 0: greedy answers are all alike")


def build_asker(args: argparse.Namespace) -> Asker:
    """What answers: a model that is loaded here, or what ``--asker`` names. Nothing is loaded yet.

    Raises:
        ConfigError: a file or setting cannot work.
    """
    from kvg.config.settings import in_file, instantiate, read_yaml
    from kvg.inference.local import LocalModel
    from kvg.training.resolved import answering_settings

    if args.asker:
        found = read_yaml(args.asker)
        with in_file(args.asker):
            asker: Asker = instantiate(found.get("asker", found), "asker", ("ask", "summary"))
        return asker
    if args.config:
        backbone, trainer = answering_settings(args.config, args.checkpoint)
    elif args.checkpoint:
        init_args = {"checkpoint": args.checkpoint}
        backbone, trainer = {"class_path": BACKBONE_CLASS, "init_args": init_args}, {}
    else:
        raise ConfigError("--checkpoint", "is missing; name the stage-1 model, or give --asker")
    return LocalModel(
        backbone,
        temperature=args.temperature,
        max_tokens=args.max_new_tokens,
        seed=args.seed,
        batch_size=args.batch_size,
        trainer=trainer,
    )
