"""What `make test-minimum` installs: the lower bound of every requirement."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = """
[project]
name = "a"
dependencies = ["numpy>=2.0,<3", "jsonargparse[signatures]>=4.53", "scipy>=1.10"]
[project.optional-dependencies]
dev = ["scipy>=1.15", "tomli>=2; python_version < '3.11'"]
more = ["ruff"]
"""


def pins(folder, *extras):
    command = [sys.executable, str(folder / ".ci/minimum"), *extras]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_requirement_of_this_project_has_a_lower_bound():
    done = pins(ROOT, "dev")
    assert done.returncode == 0, done.stderr
    names = [line.partition("==")[0] for line in done.stdout.splitlines()]
    assert {"torch", "transformers", "lightning", "pytest", "scipy"} <= set(names)
    assert len(names) == len(set(names))


def test_pins_are_the_bounds_and_the_higher_one_of_two_holds(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/minimum", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert pins(tmp_path).stdout.split() == ["jsonargparse==4.53", "numpy==2.0", "scipy==1.10"]
    assert pins(tmp_path, "dev").stdout.split() == ["jsonargparse==4.53", "numpy==2.0", "scipy==1.15", "tomli==2"]
    without = pins(tmp_path, "dev,more")
    assert without.returncode == 1
    assert "ruff has no lower bound" in without.stderr
    assert "no such extra" in pins(tmp_path, "less").stderr
