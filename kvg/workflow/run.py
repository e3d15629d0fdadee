"""All steps of the data engine for one project file, one after the other; what is done already is not done again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from kvg.pipeline.settings.compose import ComposeSettings
from kvg.pipeline.settings.project import load_project
from kvg.work.pool import follow_parent

# What each is given beside the project file. The optional ones run where the project file has a section of that name.
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
GRACE_S = 10.0  # for a step to end in order once the whole is interrupted


def run_project(path: str, workers: int = 1, last: str = "shard") -> int:
    """Runs the steps of a project, each in a process of its own; prints how long each took.

    Args:
        path: of the project file.
        workers: processes of each step; the result is the same.
        last: step.

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
            print(f"kvg-data {name} has failed; mend what it says and run this again", file=sys.stderr)
            return code
        print(f"   {time.monotonic() - start:.1f} s", flush=True)
    return 0


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Runs one command of ``kvg-data`` in a process of its own; returns its exit code.

    A model that is spread over several processes has to be the first thing that a process does.
    """
    process = subprocess.Popen([sys.executable, "-m", "kvg.cli.kvg_data", name, *arguments], preexec_fn=follow_parent)
    try:
        return process.wait()
    except BaseException:  # Ctrl-C reaches it, too
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        process.kill()
        process.wait()
        raise
