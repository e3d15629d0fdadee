"""Benchmarks are run by hand. What they import is still there, their tables say what they should, and they run."""

from __future__ import annotations

import ast
import importlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kvg.backbones.builtin import checkpoint_folder

HERE = Path(__file__).parent
OURS = ("kvg", "data_modules", "callbacks", "tests")
SHORTEST = "--turns 1 --steps 1 --warmup 0 --completion 4 --longest 6 --group 2 --image-size 112 --threads 1"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.stem)
def test_every_name_that_is_imported_exists(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark as it finds its neighbours."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


def test_questions_are_the_same_at_every_size(benchmark):
    small, large = (benchmark("checkpoints").lab_samples(3, side) for side in (140, 280))
    for one, other in zip(small, large, strict=True):
        assert one.entity == other.entity
        assert other.box_px == tuple(2 * corner for corner in one.box_px)
        assert Image.open(io.BytesIO(other.image)).size == (280, 280)


def test_a_random_twin_has_other_weights_of_the_same_shapes(benchmark, tmp_path):
    trained = Path(checkpoint_folder("lab"))
    twin = benchmark("checkpoints").random_twin(trained, tmp_path / "twin")
    ours, its = (load_file(folder / "model.safetensors") for folder in (trained, twin))
    assert {name: weight.shape for name, weight in ours.items()} == {name: weight.shape for name, weight in its.items()}
    matrices = [name for name, weight in ours.items() if weight.ndim > 1]
    assert not any(torch.equal(ours[name].float(), its[name].float()) for name in matrices)
    assert (twin / "tokenizer.json").read_bytes() == (trained / "tokenizer.json").read_bytes()


def made_up(step_s, tokens, peak, **more):
    """What a runner prints, of one step with four completions."""
    found = {"step_s": step_s, "step_cpu_s": 2 * step_s, "token_s": step_s / (4 * tokens), "mean_length": tokens}
    return {**found, "before_mib": 100, "peak_rss_mib": peak, "prompt_tokens": 87, "phases_s": {"sample": 0.5}, **more}


def test_the_table_compares_seconds_of_a_token(benchmark):
    compare = benchmark("compare_grpo")
    case = compare.Case("trained", Path("model"), 140, 4, 256, free=True)
    versions = {"trl": "1.13.0", "torch": "2.13.0"}
    runs = {
        compare.OURS: made_up(1.0, 100, 150, tokens_per_pass=2.5, versions={"torch": "2.13.0"}),
        compare.PLAIN: made_up(2.0, 100, 150, tokens_per_pass=1.0, versions={"torch": "2.13.0"}),
        "TRL 1.13.0": made_up(6.0, 200, 200, versions=versions),
    }
    text = compare.report({case: [runs, runs]}, "heading")
    row = text.splitlines()[4].strip("| ").split(" | ")
    once = [f"{value:.2f} ({value:.2f} to {value:.2f})" for value in (1, 2, 2, 6, 3, 1.5, 3, 0.5)]
    assert row == ["trained", "140", "4", "up to 256", "87", *once[:3], "2.50", *once[3:]]
    assert text.startswith("heading; torch 2.13.0, Python ")


SHORT = {
    "composites": "--num 4 --rounds 1",
    "decoding": "--turns 1 --models lab --prompts 1 --threads 1",
    "knowledge_reward": "--checkpoint {lab} --shards {shards} --prompts 4 --group 2",
    "linear": "--turns 1",
    "memory": "--turns 1 --steps 2 --rows 4 --new-tokens 4",
    "pictures": "--repeats 2",
    "reader": "--ways ours webdataset --num 16 --batch-size 2 --batches 2 --workers 0 --turns 1",
    "sft_step": "--turns 1 --steps 1",
    "threads": "--turns 1 --layers 2 --rows 1",
    "speculation": "lab-random {shards} --prompts 1 --group 2 --batches 2 --max-new-tokens 8",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHORT))
def test_a_benchmark_runs(name, lab_shards, tmp_path):
    words = SHORT[name].format(lab=checkpoint_folder("lab"), shards=lab_shards(tmp_path / "set", 4)).split()
    done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.peer
@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", checkpoint_folder("lab")]], ids=["random", "trained"])
def test_ours_and_trl_take_the_same_steps(checkpoint):
    command = [sys.executable, str(HERE / "compare_grpo.py"), *checkpoint, *SHORTEST.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    kinds = 3 if checkpoint else 1
    assert len(rows) == 1 + kinds + 1 + 3 * kinds  # two tables; three sides in the second one
