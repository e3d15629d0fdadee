"""The revision of the code that makes a set: the git revision of the checkout, or the version of the package."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from functools import lru_cache
from pathlib import Path

from kvg.config.search_path import ROOT

_TIMEOUT_S = 20.0  # so that git on a slow disk cannot block a run


@lru_cache(maxsize=1)
def revision() -> str:
    """Returns the revision of this code; it is computed once per process.

    Returns:
        The commit in hexadecimal, with ``-dirty`` if the package has been changed since. Without a checkout of its own
        or without git, the package's version.
    """
    return revision_of(ROOT / "kvg") or _version()


def revision_of(package: Path) -> str:
    """Returns the revision of a package at the top of a checkout; '' if there is none.

    Only files of the package count as changes. A set that is written into the checkout, or a change of the
    documentation, must not change the revision of the next set.

    Args:
        package: folder of the package.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    # A package that is installed below another project's checkout does not belong to that project.
    if top is None or Path(top.strip()).resolve() != package.parent:
        return ""
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return ""
    return commit.strip() + ("-dirty" if changes.strip() else "")


def _git(folder: Path, *arguments: str) -> str | None:
    # In a git hook, variables such as GIT_DIR select another repository. Locks would write into the checkout.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def _version() -> str:
    try:
        return importlib.metadata.version("kvg")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
