"""Where the disk takes nothing more, commands say so in one line, and with room they go on to the same bytes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from kvg.cli.kvg_data import main
from tests.catalogue.conftest import drawing, encoded
from tests.cli.conftest import outputs

Arguments = Callable[[Path, Path], list[str]]


def scan(folder: Path, out: Path) -> list[str]:
    for number in range(200):
        path = folder / f"in/bird/Kind {number % 8}/{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawing(number, (48, 40)), "PNG"))
    source = {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": {"root": str(folder / "in")}}
    path = folder / f"{out.parent.name}.yaml"
    path.write_text(yaml.safe_dump({"out": str(out), "sources": {"photos": source}}))
    return ["scan", str(path)]


def compose(folder: Path, out: Path) -> list[str]:
    numbers = ["--num", "60", "--samples-per-shard", "10", "--workers", "2"]
    return ["compose", "--config", "configs/lab/train.yaml", "--out", str(out), *numbers]


def shard(folder: Path, out: Path) -> list[str]:
    if not (folder / "set").exists():
        made = ["--out", str(folder / "set"), "--num", "60", "--samples-per-shard", "25"]
        assert main(["compose", "--config", "configs/lab/train.yaml", *made]) == 0
    return ["shard", "--in", str(folder / "set"), "--out", str(out), "--samples-per-shard", "10", "--workers", "2"]


COMMANDS = [scan, compose, shard]


def refused(arguments: list[str], **options) -> str:
    """What a command says that has to give up."""
    done = subprocess.run(
        [sys.executable, "-m", "kvg.cli.kvg_data", *arguments], capture_output=True, text=True, **options
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("kvg-data: ")
    return done.stderr


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A real disk of 160 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(mount(place, "size=160k"), capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not in every container")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def mount(place: Path, options: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(tmp_path, small_disk, command: Arguments):
    filler = small_disk / "filler"
    if command is scan:  # what it writes is small
        filler.write_bytes(bytes(130_000))
    arguments = command(tmp_path, small_disk / "out")
    said = refused(arguments)
    assert (
        "cannot be written (No space left on device); free disk space or choose another folder, and run it again"
        in said
    )
    assert not any((small_disk / f"out/{name}").exists() for name in ("manifest.json", "catalogue.jsonl"))
    assert not list((small_disk / "out").glob("*.tar.partial"))
    filler.unlink(missing_ok=True)
    remount(small_disk, "size=64m")
    assert main(arguments) == 0
    assert main(command(tmp_path, tmp_path / "roomy/out")) == 0
    assert outputs(small_disk / "out") == outputs(tmp_path / "roomy/out")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_can_only_be_read(tmp_path, small_disk, command: Arguments):
    arguments = command(tmp_path, small_disk / "out")
    remount(small_disk, "ro")
    assert "cannot be written (Read-only file system)" in refused(arguments)
    assert not any(small_disk.iterdir())


@pytest.mark.parametrize("command", [compose, shard])  # scan: tests/cli/test_scan.py
def test_a_file_that_may_not_grow(tmp_path, command: Arguments):
    """The same without a disk of its own: files of more than 60 KB are refused."""
    arguments = command(tmp_path, tmp_path / "tight/out")
    said = refused(arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)))
    assert "cannot be written (File too large); free disk space" in said
    assert main(arguments) == 0
    assert main(command(tmp_path, tmp_path / "roomy/out")) == 0
    assert outputs(tmp_path / "tight/out") == outputs(tmp_path / "roomy/out")
