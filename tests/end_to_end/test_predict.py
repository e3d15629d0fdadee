"""`kvg predict` as a command: one line a question, whatever happens in between."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kvg.cli.kvg import main
from kvg.evaluation.records.prediction import read_predictions
from kvg.formats.kvg_bench import write_kvg_bench

CONFIGS = ("stage/cot_sft", "backbone/tiny", "data/kvg_bench")
DDP = ("-c", "configs/strategy/ddp.yaml", "--trainer.devices", "2")
FSDP2 = ("-c", "configs/strategy/fsdp2.yaml", "--trainer.devices", "2")


def command(bench: Path, out: Path, *more: object) -> list[str]:
    words = ["predict", *(word for name in CONFIGS for word in ("-c", f"configs/{name}.yaml"))]
    words += ["--data.test", bench, "--data.num_workers", 0, "--trainer.default_root_dir", out]
    return [str(word) for word in (*words, "--trainer.accelerator", "cpu", *more)]


def start(*words: object) -> subprocess.Popen[str]:
    """The command in a process of its own, in a group of its own."""
    args = [sys.executable, "-m", "kvg", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(args, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True)


@pytest.fixture
def bench(tmp_path, scenes):
    path = tmp_path / "bench.parquet"
    write_kvg_bench(scenes(5, sizes=[(84, 84)], snap_px=None), path)
    return path


def test_predictions_are_lines_that_can_be_scored(bench, tmp_path):
    assert main(command(bench, tmp_path / "run", "--model.max_new_tokens", 4)) == 0
    cases = read_predictions(tmp_path / "run")
    assert [case.raw["question_id"].rpartition("/")[2] for case in cases] == [f"s0-000000{n}" for n in range(5)]
    told = json.loads((tmp_path / "run/predictions.json").read_text("utf-8"))
    assert (told["num_cases"], told["num_bad"]) == (5, 0)
    assert (told["sets"], told["checkpoint"]) == ({"test": str(bench)}, "tiny")
    assert told["settings"]["mode"] == "direct"


def test_pictures_and_names_without_a_true_box_are_answered(tmp_path, scenes):
    samples = scenes(2)
    path = tmp_path / "pairs.jsonl"
    for number, sample in enumerate(samples):
        (tmp_path / f"{number}.png").write_bytes(sample.image)
    lines = [{"image": f"{number}.png", "entity": sample.entity} for number, sample in enumerate(samples)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(command(path, tmp_path / "run", "--model.max_new_tokens", 4)) == 0
    cases = read_predictions(tmp_path / "run")
    assert [(case.entity, case.is_choice, case.has_truth) for case in cases] == [
        (s.entity, False, False) for s in samples
    ]
    assert json.loads((tmp_path / "run/predictions.json").read_text("utf-8"))["num_no_true_box"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.test", "/nowhere.parquet"], "/nowhere.parquet: file: does not exist"),
        (["--data.mode", "loud"], "data.mode: 'loud' is not one of auto"),
        (["--data.test", "{}"], "data.test: names no set"),
        (["--data.artifacts", "{kinds: [rain]}"], "data.artifacts.kinds: ['rain'] must be some of noise"),
        (["--data.artifacts", "{kinds: [seams]}"], "data.artifacts.kinds: seams: "),
    ],
)
def test_what_cannot_work_is_said_before_the_model_is_loaded(arguments, message, bench, tmp_path, capsys):
    nowhere = ["--model.backbone.checkpoint", "/nowhere/model"]  # would be said, too, were it looked at
    assert main(command(bench, tmp_path / "run", *nowhere, *arguments)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert main(command(bench, tmp_path / "run", *nowhere)) == 2
    assert "'/nowhere/model' is no such folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="a killed launcher takes its processes along on Linux")
def test_killed_at_any_moment_and_in_any_number_of_processes_it_ends_the_same(tmp_path, scenes):
    """Each start is killed after some of its answers, and the next goes on with other processes."""
    bench = tmp_path / "bench.parquet"
    write_kvg_bench(scenes(30, sizes=[(84, 84), (112, 84)], snap_px=None), bench)
    settings = ("--model.max_new_tokens", 64, "--data.batch_size", 2, "--data.mode", "describe")
    whole = start(*command(bench, tmp_path / "whole", *settings))
    said = whole.communicate()[0]
    assert whole.returncode == 0, said
    pieces, rng, kills = tmp_path / "killed/predictions.units", random.Random(5), 0

    def answered():
        return sorted(pieces.glob("*.json")) if pieces.is_dir() else []

    for turn in range(12):
        process = start(*command(bench, tmp_path / "killed", *settings, *((), DDP, FSDP2)[turn % 3]))
        due = len(answered()) + rng.randint(1, 4)
        while process.poll() is None and len(answered()) < due:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)  # the first process alone: it must not leave another behind
        process.communicate()
        kills += 1
        left = answered()
        time.sleep(1.0)
        assert answered() == left, "a process has outlived the one that started it"
    last = start(*command(bench, tmp_path / "killed", *settings, *DDP))
    said = last.communicate()[0]
    assert last.returncode == 0, said
    assert kills > 2
    assert (tmp_path / "killed/predictions.jsonl").read_bytes() == (tmp_path / "whole/predictions.jsonl").read_bytes()
    assert not pieces.exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_a_picture_that_one_of_two_processes_cannot_decode(strategy, tmp_path, scenes):
    """The second process meets it; the first tells, and all other answers are kept."""
    samples = scenes(6, sizes=[(84, 84)], snap_px=None)
    at = samples[3].image.index(b"IDAT") + 4
    spoiled = samples[3].image[:at] + bytes(40) + samples[3].image[at + 40 :]
    write_kvg_bench([replace(s, image=spoiled) if n == 3 else s for n, s in enumerate(samples)], tmp_path / "b.parquet")
    settings = ("--model.max_new_tokens", 4, "--data.batch_size", 2, *strategy)
    process = start(*command(tmp_path / "b.parquet", tmp_path / "run", *settings))
    said = process.communicate()[0]
    assert process.returncode == 2, said
    assert said.strip().splitlines()[-1].startswith(f"kvg: {tmp_path}/b.parquet row 3 (")
    assert len(list((tmp_path / "run/predictions.units").glob("*.json"))) == 2
    again = start(*command(tmp_path / "b.parquet", tmp_path / "run", *settings, "--data.skip_bad", "true"))
    said = again.communicate()[0]
    assert again.returncode == 0, said
    assert "4 of 6 answers exist" in said
    assert "5 answers, 1 unusable questions skipped" in said


@pytest.mark.slow
def test_asked_to_end_it_ends_and_keeps_its_answers(tmp_path, scenes):
    bench = tmp_path / "bench.parquet"
    write_kvg_bench(scenes(60, sizes=[(84, 84)], snap_px=None), bench)
    process = start(*command(bench, tmp_path / "run", "--model.max_new_tokens", 256, "--data.batch_size", 1))
    pieces = tmp_path / "run/predictions.units"
    while process.poll() is None and not (pieces.is_dir() and len(list(pieces.glob("*.json"))) > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGTERM, said
    assert time.monotonic() - began < 5
    assert len(list(pieces.glob("*.json"))) > 1
