from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kvg.workflow.demo import FAST, DemoSizes, config_path, processes_of_stages, steps


def plan(**changes):
    options = {
        "sizes": DemoSizes(),
        "out": Path("runs/demo"),
        "seed": 0,
        "base": "lab",
        "processes": {"direct_sft": 1, "cot_sft": 1, "grpo": 2},
    }
    options |= changes
    return {step.name: step for step in steps(**options)}


def value(step, option):
    return step.command[step.command.index(option) + 1]


def test_every_step_comes_after_what_it_needs_and_reads():
    found = plan()
    made: list[Path] = []
    before: set[str] = set()
    for step in found.values():
        assert before.issuperset(step.needs)
        reached = set(step.needs)
        for name in step.needs:
            reached |= {need for other in found.values() if other.name == name for need in other.needs}
        for word in step.command[1:]:
            for other in found.values():
                if word == str(other.out) and other.name != step.name:
                    assert other.name in reached or step.name == "report", f"{step.name} uses {word}"
        before.add(step.name)
        made.append(step.out)
    assert len(set(made)) == len(made)
    assert list(found)[-1] == "report"


def test_stages_begin_where_they_should():
    found = plan()
    start = "--model.init_args.backbone.init_args.checkpoint"
    assert [value(found[name], start) for name in ("cot_sft", "direct_sft", "test_base")] == ["lab"] * 3
    assert value(found["grpo"], start) == value(found["test_cot_sft"], start) == "runs/demo/cot_sft/export"
    assert value(found["filter"], "--checkpoint") == "runs/demo/cot_sft/export"
    assert value(found["test_cot_sft_grpo"], start) == "runs/demo/grpo/export"
    assert value(found["grpo"], "--data.train") == value(found["filter"], "--out")
    settings = yaml.safe_load(Path(config_path("configs/experiment/demo_grpo.yaml")).read_text("utf-8"))
    assert float(value(found["filter"], "--temperature")) == settings["model"]["init_args"]["temperature"]
    # Whoever has not learnt to think is asked plainly.
    modes = {
        name: value(found[f"test_{name}"], "--data.mode") for name in ("base", "direct_sft", "cot_sft", "cot_sft_grpo")
    }
    assert modes == {"base": "direct", "direct_sft": "direct", "cot_sft": "think", "cot_sft_grpo": "think"}


def test_no_composite_is_in_two_sets_and_seeds_share_none():
    used = [value(plan(seed=seed)[name], "--seed") for seed in range(3) for name in ("plain", "hard", "val", "test")]
    assert len(set(used)) == len(used)
    assert "test" not in value(plan()["plain"], "--config")
    for name, config in (("plain", "train"), ("hard", "train"), ("val", "val"), ("test", "test")):
        assert value(plan()[name], "--config").endswith(f"configs/lab/{config}.yaml")


def test_fast_is_another_set_of_sizes_only():
    slow, fast = plan(), plan(sizes=FAST)
    assert list(slow) == list(fast)
    assert value(fast["plain"], "--num") == "48"
    assert value(fast["grpo"], "--trainer.max_steps") == "3"
    assert "--trainer.max_steps" not in slow["grpo"].command


def test_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(config_path("configs/lab/train.yaml"))
    assert path.is_absolute()
    assert path.is_file()
    (tmp_path / "configs/lab").mkdir(parents=True)
    (tmp_path / "configs/lab/train.yaml").write_text("mine")
    assert config_path("configs/lab/train.yaml") == "configs/lab/train.yaml"


def test_what_the_demo_has_made_does_not_change_its_steps(tmp_path):
    before = plan(out=tmp_path)
    for name in ("cot_sft", "grpo"):
        weights = tmp_path / name / "export/model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    assert plan(out=tmp_path) == before
    assert plan(out=tmp_path, base=str(tmp_path / "grpo/export"))["cot_sft"].reads[-1].name == "model.safetensors"


def test_a_training_of_two_processes_keeps_two_cores_busy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/experiment").mkdir(parents=True)
    (tmp_path / "configs/experiment/demo_grpo.yaml").write_text("trainer.devices: 2\ntrainer.strategy: ddp")
    processes = processes_of_stages()
    assert processes == {"direct_sft": 1, "cot_sft": 1, "grpo": 2}
    found = plan(processes=processes)
    assert (found["grpo"].cores, found["cot_sft"].cores, found["filter"].cores) == (2, 1, 1)


@pytest.fixture
def start(tmp_path):
    """Starts a fast demo in a folder of its own; none outlives the test."""
    started = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kvg.cli.kvg_data", "demo", "--fast", "--base", "tiny", "--jobs", "2"]
        process = subprocess.Popen(
            [*command, "--out", "demo"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def children(folder: Path) -> list[str]:
    """Command lines of living processes whose working folder this is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if line]


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(start, tmp_path, number):
    process = start()
    deadline = time.monotonic() + 60
    while not any("compose" in line for line in children(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "interrupted" in out
    assert children(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_and_a_second_run_that_has_nothing_to_do(start, tmp_path):
    process = start()
    out, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, out
    record = json.loads((tmp_path / "demo/results.json").read_text())
    assert list(record["runs"]) == ["base", "direct_sft", "cot_sft", "cot_sft_grpo"]
    assert {run["facts"]["cases"] for run in record["runs"].values()} == {FAST.num_test}
    for name in ("cot_sft", "direct_sft", "grpo"):
        assert (tmp_path / "demo" / name / "export/model.safetensors").is_file()
    page = (tmp_path / "demo/index.html").read_text("utf-8")
    assert "Learning curves" in page
    assert page.count("<article class=card") == page.count("data:image/") == FAST.num_test
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo/stamps").iterdir()}
    again = start()
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0, out
    assert "complete: plain, val, cards, train, cot_sft" in out
    assert "$ kvg" not in out
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "demo/stamps").iterdir()}
