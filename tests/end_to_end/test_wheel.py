"""The project as it is installed: a wheel, in an empty folder, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a program of the wheel in an empty folder; returns what it prints."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build writes beside its sources
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [name for name in os.fsdecode(tracked).split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", *build], check=True)
    (wheel,) = folder.glob("kvg-*.whl")
    site, empty = folder / "site", folder / "empty"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    empty.mkdir()

    def run(module, *words):
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *words]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = empty
    run.site = site
    return run


def test_programs_and_their_help(installed):
    assert "usage: kvg " in installed("kvg", "--help")
    assert "compose" in installed("kvg.cli.kvg_data", "--help")
    assert "usage: kvg-data demo" in installed("kvg.cli.kvg_data", "demo", "--help")


def test_configs_are_in_it(installed):
    shipped = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file())
    assert [path for path in shipped if not (installed.site / path).is_file()] == []
    printed = installed(
        "kvg", "fit", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/lab.yaml", "--data.train", "x",
        "--print_config",
    )  # fmt: skip
    assert "class_path: data_modules.CoTSFTDataModule" in printed


def test_composites_of_a_shipped_config(installed):
    words = ("compose", "--config", "configs/lab/test.yaml", "--out", "made", "--num", "4", "--seed", "1")
    installed("kvg.cli.kvg_data", *words)
    assert "4" in installed("kvg.cli.kvg_data", "verify", "made")
    assert (installed.folder / "made/manifest.json").is_file()
