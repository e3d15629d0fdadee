"""Benchmarks are run by hand: what they import is still there, and the comparison with TRL still runs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OURS = ("kvg", "data_modules", "callbacks", "tests")
SHORTEST = "--turns 1 --steps 1 --warmup 0 --completion 4 --group 2 --image-size 112 --threads 1"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.stem)
def test_every_name_that_is_imported_exists(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.peer
def test_ours_and_trl_take_the_same_steps():
    command = [sys.executable, str(HERE / "compare_grpo.py"), "--peer", "newest=", *SHORTEST.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "newest: our memory above the model is" in done.stdout
