"""Which code made a set: the git revision of the checkout, or the version of the installed package."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from functools import lru_cache
from pathlib import Path

import kvg

_WAIT_S = 20.0  # a checkout on a slow disk must not hold up a run for ever


@lru_cache(maxsize=1)
def revision() -> str:
    """The revision of this code, the same for all of a process's life.

    Returns:
        The commit in hexadecimal, with ``-dirty`` where the package has been changed since, or the package's version
        where it does not lie in a checkout of its own, or git is not there.
    """
    return revision_of(Path(kvg.__file__).resolve().parent) or _version()


def revision_of(package: Path) -> str:
    """The revision of a package that lies at the top of a checkout; '' where there is none.

    Only what lies in the package counts as a change: a set that is written into the checkout, or a reworded manual,
    must not give the next set another revision.

    Args:
        package: its folder.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    # A package that is installed somewhere below another project's checkout is not of that project.
    if top is None or Path(top.strip()).resolve() != package.parent:
        return ""
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return ""
    return commit.strip() + ("-dirty" if changes.strip() else "")


def _git(folder: Path, *arguments: str) -> str | None:
    # Git's own variables would lead to another repository, as they do in a hook; locks would write into the checkout.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def _version() -> str:
    try:
        return importlib.metadata.version("kvg")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
