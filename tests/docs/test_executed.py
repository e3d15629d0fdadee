"""Blocks of pages that are marked as executed, in the order of their page; and the notebooks."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kvg.formats.rollout_files import RolloutRecord, write_rollouts
from kvg.lab.world import LabSource
from tests.docs.pages import ROOT, Block, blocks, code_cells, notebooks

PAGES = {
    page: list(some) for page, some in itertools.groupby((b for b in blocks() if b.executed), key=lambda b: b.page)
}
SLOW = ("lab.md", "own_pictures.md")  # they train; the others take seconds


@pytest.mark.parametrize("notebook", notebooks(), ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(code_cells(notebook)):
        exec(compile(cell, f"{notebook.name}[{number}]", "exec"), names)


def rollouts(folder: Path) -> None:
    """A run of stage 2 with one rollout."""
    box = (100.0, 100.0, 400.0, 400.0)
    record = RolloutRecord(
        *(0, 0, 0, 0, 0, "k0", "Merlin", "bird", "seen", "ab", 140, 140, box, "<answer>none</answer>", None, "stop"),
        *(9, 0.1, {"iou": 0.0, "format": 0.0}, 0.0, 0.0),
    )
    write_rollouts(folder / "runs/grpo", [record])


def lab_pictures(folder: Path) -> None:
    """Files named CATEGORY-ENTITY-NUMBER.png."""
    source, target = LabSource(categories=["bird"], pool="tests"), folder / "numbered"
    target.mkdir()
    for entity in source.entities("bird")[:2]:
        source.tile(entity, random.Random(entity)).save(target / f"bird-{entity}-0.png")


def configs(folder: Path) -> None:
    """The checkout's folder of configs."""
    (folder / "configs").symlink_to(ROOT / "configs")


def docs(folder: Path) -> None:
    """The checkout's documentation with its pictures."""
    (folder / "docs").symlink_to(ROOT / "docs")


NEEDS = {"configs": configs, "docs": docs, "rollouts": rollouts, "lab pictures": lab_pictures}


def run(block: Block, folder: Path) -> None:
    """Writes the file that a block names; runs the commands of a shell block, and the code of a Python block."""
    if need := block.how.partition(": ")[2]:
        NEEDS[need](folder)
    if block.file:
        (folder / block.file).write_text(block.text)
    if block.kind == "yaml" or (block.file and "import" not in block.text):
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", block.text] if block.kind == "python" else ["bash", "-ec", block.text]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block.name}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def run_page(page: Path, folder: Path) -> None:
    for block in PAGES[page]:
        run(block, folder)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in SLOW], ids=lambda page: page.stem)
def test_blocks_of_pages_run(page, tmp_path):
    run_page(page, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", [p for p in PAGES if p.name in SLOW], ids=lambda page: page.stem)
def test_tutorials_run(page, tmp_path):
    run_page(page, tmp_path)
