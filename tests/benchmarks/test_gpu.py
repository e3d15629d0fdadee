"""The command for a GPU, as far as it goes without one: the whole of it on a toy, and what it says when parts fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = str(HERE / "gpu.py")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import gpu

    return gpu


def test_tests_for_a_gpu_are_found(gpu):
    root = HERE.parent
    found = {path.relative_to(root).as_posix() for path in root.rglob("test_*.py") if gpu.marks_gpu(path)}
    named = {"backbones/test_devices.py", "backbones/test_fixed_shape.py", "end_to_end/test_devices.py"}
    assert named <= found


def test_a_part_that_fails_or_has_no_time_says_so(gpu):
    clock = gpu.Clock(1)
    assert gpu.run(["-c", "print('7')"], clock)["printed"] == "7\n"
    found = gpu.run(["-c", "raise SystemExit('no such card')"], clock)
    assert (found["status"], found["failed"]) == (1, "no such card")
    assert gpu.run(["-c", ""], gpu.Clock(0)) == {"failed": "no time was left"}
    clock = gpu.Clock(6 / 60)
    assert gpu.run(["-c", "import time; time.sleep(60)"], clock) == {"failed": "did not end in the time that was left"}
    found = {"tests": {"failed": "some"}, "steps": {"2b": {"a": {"step_s": 1.0}, "b": {"failed": "x"}}}}
    assert gpu.failures(found) == ["tests", "2b: b"]


def test_a_command_without_a_card_is_refused():
    done = subprocess.run([sys.executable, SCRIPT, "--sizes", "3b"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--sizes: 3b is none of tiny, 2b, 7b" in done.stderr


@pytest.mark.slow
def test_the_whole_command_runs_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--sizes", "tiny", "--minutes", "30", "--out", str(out)]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["device"] == "cpu"
    assert found["tests"]["failed_tests"] == []
    assert found["tests"]["skipped"] > 10  # without a card
    steps = found["steps"]["tiny"]
    ours = ["stage 2, shared prompt", "stage 2, fixed shapes", "stage 2, repeated prompt"]
    assert {*ours, "stage 1, packed", "stage 1, transformers Trainer"} <= steps.keys()
    assert all(way["step_s"] > 0 for way in steps.values())
    assert steps[ours[0]]["kernels"]
