"""One process, several under DDP, and several that share the weights (FSDP2) say the same, in every round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DDP = {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"find_unused_parameters": False}}
FSDP2 = {"class_path": "kvg.modules.sharding.FSDP2Strategy"}


def answered(work: Path, **trainer) -> list:
    """What the only process that goes on has to say."""
    command = [sys.executable, "-m", "tests.inference.local_in_processes", str(work), json.dumps(trainer)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return json.loads(line)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    found = answered(tmp_path_factory.mktemp("alone"))
    assert [key for key, _, _ in found] == [f"q{number}" for number in range(9)]
    asked = [len(values) + len(faults) for _, values, faults in found]
    assert max(asked) > 2  # there were further rounds
    assert [asked[4], asked[5]] == [1, 1]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "num"), [(DDP, 2), (FSDP2, 2), (DDP, 3)], ids=["ddp", "fsdp2", "ddp-3"])
def test_processes_that_take_turns_say_the_same(alone, tmp_path, strategy, num):
    found = answered(tmp_path, accelerator="cpu", devices=num, strategy=strategy)
    assert found == alone
    again = answered(tmp_path)  # the identity is the same, so nothing is left to be asked
    assert again == alone
