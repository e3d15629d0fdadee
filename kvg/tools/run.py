"""All steps of the data engine for one project file, one after the other; what is done already is not done again."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Mapping
from typing import Any

from kvg.errors import ConfigError

# What each is told beside the project file. The optional ones run where the project file has a section of that name.
STEPS: Mapping[str, tuple[str, ...]] = {
    "scan": ("--if-changed",),
    "box": (),
    "probe": (),
    "compose": (),
    "rationalize": (),
    "filter": (),
    "shard": (),
}
OPTIONAL = ("box", "probe", "filter")
IN_PROCESSES = ("scan", "compose", "rationalize", "shard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("project", help="project file (YAML)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1); the result is the same")
    parser.add_argument("--to", choices=list(STEPS), default="shard", help="the last step (default shard)")


def run(args: argparse.Namespace) -> int:
    """Runs the steps.

    Returns:
        That of the first step that fails, or 0.

    Raises:
        KVGError: as a step does; run it again when the cause is mended, and it goes on there.
    """
    from kvg.catalogue.project import load_project

    project = load_project(args.project)
    check_sections(project.later)
    names = list(STEPS)[: list(STEPS).index(args.to) + 1]
    for name in names:
        if name in OPTIONAL and name not in project.later:
            continue
        began = time.monotonic()
        print(f"-- {name}")
        workers = ("--workers", str(args.workers)) if name in IN_PROCESSES else ()
        code = run_command(name, (args.project, *STEPS[name], *workers))
        print(f"   {time.monotonic() - began:.1f} s")
        if code:
            return code
    return 0


def check_sections(later: Mapping[str, Any]) -> None:
    """Checks the settings of all steps before the first of them starts.

    Raises:
        ConfigError: a setting is unknown or cannot work.
    """
    from kvg.catalogue.project import settings_of

    for name, (module, kind) in SECTION_CLASSES.items():
        if name in later or name not in (*OPTIONAL, "shard", "rationalize"):
            try:
                settings_of(getattr(importlib.import_module(module), kind), later.get(name), name)
            except (ImportError, AttributeError) as error:
                raise ConfigError(name, f"{error}") from error


SECTION_CLASSES = {
    "box": ("kvg.catalogue.boxing", "BoxSettings"),
    "probe": ("kvg.tools.probe", "ProbeSettings"),
    "compose": ("kvg.tools.project_sets", "ComposeSettings"),
    "rationalize": ("kvg.tools.rationalize", "RationaleSettings"),
    "filter": ("kvg.tools.project_sets", "FilterSettings"),
    "shard": ("kvg.tools.project_sets", "ShardSettings"),
}


def run_command(name: str, arguments: tuple[str, ...]) -> int:
    """Runs one command of ``kvg-data`` in this process; returns its exit code."""
    module = importlib.import_module(f"kvg.tools.{name}")
    parser = argparse.ArgumentParser(prog=f"kvg-data {name}")
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)) or 0)
