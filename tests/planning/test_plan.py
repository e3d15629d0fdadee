"""Plans of memory: against what torch's profiler sees a training allocate, and against numbers worked by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kvg.errors import ConfigError
from kvg.planning.heads import plan_in, with_plan
from kvg.planning.known_sizes import published, size_of
from kvg.planning.parts import Part
from kvg.planning.plan import make_plan
from kvg.planning.sharing import Sharing
from kvg.planning.tracer import Tracer
from kvg.planning.training import Training
from tests.planning.batches import full_batch
from tests.planning.measured import run

FUSED = {"class_path": "torch.optim.AdamW", "init_args": {"fused": True}}
SHORT = {"max_tokens": 128, "batch_size": 2, "max_new_tokens": 48}
SFT = {"stage": "sft", "strategy": "single", "processes": 1, "precision": "32-true", **SHORT}
GRPO = {**SFT, "stage": "grpo", "group_size": 4}
TINY, LAB = ({"checkpoint": name, "dtype": "float32"} for name in ("tiny", "lab"))
CASES = {
    "sft tiny": SFT | {"backbone": TINY, "max_tokens": 512},
    "grpo tiny": GRPO | {"backbone": TINY},
    "sft small": SFT | {"backbone": LAB, "max_tokens": 256},
    "sft small recomputed": SFT | {"backbone": LAB | {"gradient_checkpointing": True}, "max_tokens": 256},
    "sft small bf16-mixed": SFT | {"backbone": LAB, "precision": "bf16-mixed", "max_tokens": 256},
    "grpo small": GRPO | {"backbone": LAB},
    "sft small lora": SFT | {"backbone": LAB | {"lora": {"r": 8}}, "max_tokens": 256},
}


def predicted(settings) -> float:
    own = {name: value for name, value in settings["backbone"].items() if name != "checkpoint"}
    from kvg.backbones.lora import LoRASettings

    if own.get("lora"):
        own["lora"] = LoRASettings(**own["lora"])
    names = ("stage", "precision", "processes", "strategy", "batch_size", "max_tokens", "max_new_tokens", "gather")
    given = {name: settings[name] for name in names if name in settings}
    more = {"group_size": settings["group_size"], "reference": True} if settings["stage"] == "grpo" else {}
    checkpoint = settings["backbone"]["checkpoint"]
    training = Training(
        checkpoint=checkpoint, family=None, backbone=own, device="cpu", optimizer=FUSED, **given, **more
    )
    plan = make_plan(training, size_of(checkpoint))
    return plan.total(80)


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_within_a_tenth_of_what_is_allocated(name):
    settings = CASES[name]
    made, seen = predicted(settings), run(settings, partial(full_batch, settings))
    assert made == pytest.approx(seen, rel=0.1), f"{name}: planned {made / 1e6:.1f} MB, measured {seen / 1e6:.1f} MB"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", ["sft small", "grpo small"])
def test_so_it_is_in_two_processes(name, strategy, tmp_path, find_port):
    settings = CASES[name] | {"strategy": strategy, "processes": 2, "gather": "layer"}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_port()), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.planning.measured", str(file)],
            env=os.environ | common | {"LOCAL_RANK": str(rank), "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    peaks = [int(line.split()[1]) for text in outputs for line in text.splitlines() if line.startswith("PEAK")]
    assert len(peaks) == 2, outputs
    made = predicted(settings)
    assert made == pytest.approx(max(peaks), rel=0.1), f"{made / 1e6:.1f} MB, measured {peaks}"


def test_memory_is_counted_until_it_is_free():
    tracer = Tracer(FakeTensorMode(allow_non_fake_inputs=True))
    with tracer:
        a = torch.zeros(1000)  # 4,000 bytes
        b = a[:500]  # the same memory
        c = a + 1
        del a
        assert sum(tracer.live.values()) == 8000
        del b, c
    assert sum(tracer.live.values()) == 0
    assert sum(tracer.peak.values()) == 8000


def test_shares_are_rows_rounded_up():
    weight, bias = torch.zeros(5, 3), torch.zeros(4)
    assert Sharing(2).bytes_of([weight, bias, weight]) == 4 * (3 * 3 + 2)
    assert Sharing(2, frozenset({id(weight)})).bytes_of([weight, bias]) == 4 * (15 + 2)


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("Qwen/Qwen2-VL-72B-Instruct", "Qwen2-VL-72B"),
        ("runs/qwen3_vl_8b_cot_sft/export", "Qwen3-VL-8B"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B"),
    ],
)
def test_a_size_is_known_by_its_name(checkpoint, name):
    assert size_of(checkpoint).name == name


def test_an_unknown_size_is_an_error():
    with pytest.raises(ConfigError, match="--size"):
        size_of("runs/mine/export")
    with pytest.raises(ConfigError, match="Qwen2-VL-2B"):
        size_of("tiny", name="Qwen9")


BILLIONS = {"Qwen2-VL-2B": 2.209, "Qwen2-VL-7B": 8.291, "Qwen2.5-VL-3B": 3.755, "Qwen3-VL-8B": 8.767}  # as published


@pytest.mark.parametrize("name", BILLIONS)
def test_published_sizes_have_the_published_parameters(name):
    size = size_of("", name=name)
    with torch.device("meta"):
        model = size.family.hf_class(size.config)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(BILLIONS[name], abs=6e-4)
    assert name in published()


def test_states_of_adamw_and_shares_follow_arithmetic():
    size = size_of("tiny")
    common = {"checkpoint": "tiny", "family": None, "backbone": {"dtype": "float32"}, "precision": "32-true"}
    plan = make_plan(
        Training(
            "sft", device="cuda", processes=2, strategy="fsdp2", optimizer=FUSED, max_tokens=128, batch_size=1, **common
        ),
        size,
    )
    step = plan.phases(80)["step"]
    trained = plan.parameters[1]
    assert step[Part.OPTIMIZER] == pytest.approx(2 * 4 * trained / 2, rel=0.01)
    assert step[Part.GRADIENTS] == pytest.approx(4 * trained / 2, rel=0.01)
    assert step[Part.WEIGHTS] == pytest.approx(plan.weights / 2, rel=0.01)
    assert step[Part.RESERVE] >= 2e9


def test_a_plan_in_a_head_takes_the_place_of_an_earlier_one(tmp_path):
    file = tmp_path / "a.yaml"
    text = with_plan("# Stage 1.\ntrainer: {}\n", "kvg plan -c a.yaml", ["fits 80 GB", "  more"])
    file.write_text(with_plan(text, "kvg plan -c b.yaml", ["fits 24 GB"]))
    assert plan_in(file) == ("kvg plan -c b.yaml", ["fits 24 GB"])
    assert file.read_text() == "# Stage 1.\n# Plan: kvg plan -c b.yaml\n#   fits 24 GB\ntrainer: {}\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_plan_is_within_a_tenth_of_what_a_gpu_allocates():
    from tests.planning.on_gpu import allocated

    made, seen = allocated()
    assert made == pytest.approx(seen, rel=0.1)
