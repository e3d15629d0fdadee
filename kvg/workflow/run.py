"""Runs all steps of the data engine for one project file, in order; complete steps are not repeated."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from kvg.pipeline.settings.compose import ComposeSettings
from kvg.pipeline.settings.project import load_project
from kvg.work.pool import follow_parent

# Arguments of each step beside the project file. Optional steps run only if the project file has their section.
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
GRACE_S = 10.0  # seconds for a step to end after an interrupt


def run_project(path: str, workers: int = 1, last: str = "shard") -> int:
    """Runs the steps of a project, each in its own process; prints the duration of each.

    Args:
        path: path of the project file.
        workers: number of processes of each step; it does not change the result.
        last: name of the last step to run.

    Returns:
        The exit code of the first step that fails, or 0.

    Raises:
        KVGError: the project file is wrong.
    """
    project = load_project(path)
    project.check_classes()
    names = list(STEPS)[: list(STEPS).index(last) + 1]
    if "compose" in names:
        project.settings("compose", ComposeSettings)
    for name in names:
        if name in OPTIONAL and getattr(project, name) is None:
            continue
        start = time.monotonic()
        print(f"-- {name}", flush=True)
        options = ["--workers", str(workers)] if name in IN_PROCESSES else []
        if code := run_command(name, [path, *STEPS[name], *options]):
            print(f"kvg-data {name} has failed; correct the error above and run this again", file=sys.stderr)
            return code
        print(f"   {time.monotonic() - start:.1f} s", flush=True)
    return 0


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Runs one command of ``kvg-data`` in its own process; returns the exit code.

    It needs a new process, since a model on several devices starts further processes that run the same command.
    """
    process = subprocess.Popen([sys.executable, "-m", "kvg.cli.kvg_data", name, *arguments], preexec_fn=follow_parent)
    try:
        return process.wait()
    except BaseException:  # Ctrl-C also reaches the child
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        process.kill()
        process.wait()
        raise
