"""A sweep that is killed, goes on and grows, with real trainings."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def start(tmp_path):
    """Starts the command in a process of its own; none outlives the test."""
    started = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kvg.cli.kvg_data", "sweep", *arguments]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **streams, text=True, env={**os.environ, "COLUMNS": "250"})
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def living(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(folder) in line and int(entry.name) != os.getpid():
            found.append(line.replace("\0", " "))
    return found


CHECKPOINTS = """
trainer:
  callbacks+:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_train_steps: 5, save_top_k: 1, save_last: link, filename: "often{step}"}
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
def test_a_killed_sweep_goes_on_and_a_longer_one_runs_what_is_missing(start, tmp_path, lab_shards):
    lab_shards(tmp_path / "train", 8)
    (tmp_path / "often.yaml").write_text(CHECKPOINTS)
    settings = {
        "data.train": str(tmp_path / "train"),
        "trainer.max_epochs": -1,
        "trainer.max_steps": 100,
        "data.batch_size": 2,
    }
    stage = ["configs/stage/cot_sft.yaml", "configs/backbone/tiny.yaml"]
    compose = "kvg-data compose --config configs/lab/test.yaml --out {out}/test --num 6 --seed 3"

    axes = {"rate": {"low": {}, "high": {"fit": {"settings": {"model.optimizer.init_args.lr": 0.01}}}}}

    def experiment(name: str, seeds: list[int], axes: dict[str, object] = axes) -> str:
        content = {
            "out": str(tmp_path / name),
            "seeds": seeds,
            "prepare": {"test": {"run": compose, "makes": "{out}/test"}},
            "fit": {"configs": [*stage, str(tmp_path / "often.yaml")], "settings": settings},
            "axes": axes,
            "predict": {
                "configs": [*stage, "configs/data/lab_test.yaml"],
                "settings": {"data.test": "{out}/test", "model.max_new_tokens": 8, "data.batch_size": 2},
            },
            "compare": {"curves": ["train/loss"]},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return str(path)

    whole = start(experiment("whole", [0], {"rate": {"low": {}}}))
    said, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, said

    killed = start(experiment("killed", [0]), "--jobs", "1")
    folder, deadline = tmp_path / "killed/runs/low/seed0/fit", time.monotonic() + 300
    while not list(folder.glob("*/*/checkpoints/last.ckpt")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while living(tmp_path / "killed"):
        assert time.monotonic() < deadline, living(tmp_path / "killed")
        time.sleep(0.05)
    assert not (folder / "export/config.json").exists(), "the training was over before it could be killed"

    again = start(experiment("killed", [0]))
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert "complete: prepare_test" in said
    assert re.search(r"--ckpt_path \S+/killed/runs/low/seed0/fit/\S+last.ckpt", said)
    for part in ("fit/export/model.safetensors", "predict/predictions.jsonl"):
        one, other = (tmp_path / name / "runs/low/seed0" / part for name in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()

    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed/stamps").glob("*.json")}

    before = stamps()
    nothing = start(experiment("killed", [0]))
    said, _ = nothing.communicate(timeout=300)
    assert nothing.returncode == 0, said
    assert "$ kvg" not in said
    assert "high against low" in said
    assert stamps() == before

    one = start(experiment("killed", [0, 1]), "--only", "high_seed1")
    said, _ = one.communicate(timeout=600)
    assert one.returncode == 0, said
    assert "2 steps of other runs are left" in said
    longer = start(experiment("killed", [0, 1]))
    said, _ = longer.communicate(timeout=600)
    assert longer.returncode == 0, said
    assert said.count("$ kvg") == 2
    after = stamps()
    assert len(after) == 1 + 8
    assert {name: after[name] for name in before} == before
    record = json.loads((tmp_path / "killed/sweep.json").read_text())
    assert record["comparison"]["runs"] == {"low": 2, "high": 2}
    assert [point["n"] for point in record["curves"]["train/loss"]["low"]] == [2] * 10
