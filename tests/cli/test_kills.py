"""Commands killed at random moments go on, and what they make is what they would have made, to the last byte."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.catalogue.conftest import bad_ones, drawing, encoded


def pictures(root: Path, num: int) -> None:
    for number in range(num):
        path = root / f"bird/Kind {number % 8}/{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawing(number, (400, 300))))
    for name, (data, _) in bad_ones(0).items():
        (root / "bird/Kind 0" / name).write_bytes(data)


def scan(folder: Path, name: str, size: int) -> list[str]:
    if not (folder / "in").exists():
        pictures(folder / "in", 40 * size)
    init = {"root": str(folder / "in")}
    source = {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": init}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"out": str(folder / name), "sources": {"photos": source}}))
    return ["scan", str(path), "--workers", "2"]


def compose(folder: Path, name: str, size: int) -> list[str]:
    config = "configs/lab/train.yaml"
    numbers = ["--num", str(20 * size), "--samples-per-shard", "20", "--seed", "3", "--workers", "2"]
    return ["compose", "--config", config, "--out", str(folder / name), *numbers]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kvg.cli.kvg_data", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def children(process: subprocess.Popen[str]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in tasks.read_text().split()] if tasks.exists() else []


def strike(process: subprocess.Popen[str]) -> bool:
    """Kills a command that still runs, sees that nobody is left behind, and says whether it ran."""
    left = children(process)
    running = process.poll() is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)
    return running


@pytest.mark.parametrize(("kills", "size"), [(3, 10), pytest.param(20, 30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", [scan, compose])
def test_a_killed_command_goes_on(tmp_path, command, kills, size):
    arguments = command(tmp_path, "whole", size)
    began = time.monotonic()
    whole = start(arguments)
    assert whole.wait() == 0, whole.stderr.read()
    longest, rng, struck = time.monotonic() - began, random.Random(0), 0
    killed = command(tmp_path, "killed", size)
    while struck < kills:
        process = start(killed)
        time.sleep(rng.uniform(0.2, 0.9) * longest)
        struck += strike(process)
        finished = (tmp_path / "killed/manifest.json").exists()  # and was killed on its way out
        if process.returncode == 0 or finished:  # it came to its end: once more from nothing
            assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
    last = start(killed)
    assert last.wait() == 0, last.stderr.read()
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
