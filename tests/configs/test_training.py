"""Every shipped config trains two steps in its own precision, optimizer, clipping, schedule and strategy.

Only checkpoint, data and the number of processes are put in place: what a config names is not here.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from kvg.backbones.backbone import Backbone
from kvg.modules.pretrain import schedule
from tests.configs import matrix
from tests.configs.matrix import Run
from tests.configs.pair import NUM_STEPS, Pair, train
from tests.configs.toys import NUM_QUESTIONS, NUM_SAMPLES, Toys, family_of_name, make_toys


@pytest.fixture(scope="session")
def toys(tmp_path_factory) -> Toys:
    return make_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory, find_port):
    found = Pair(tmp_path_factory.mktemp("pair"), find_port)
    yield found
    found.stop()


def family(backbone: dict[str, Any]) -> str:
    """Model type that a config's checkpoint is named after, as in ``Qwen/Qwen2.5-VL-7B-Instruct``."""
    return family_of_name(backbone["init_args"]["checkpoint"])


def num_processes(settings: dict[str, Any]) -> int:
    return 1 if settings["trainer"].get("devices") == 1 else 2


def arguments(run: Run, toys: Toys, folder: Path, nameless: str) -> list[str]:
    """The command line: the config's own settings, but for what is not on this machine."""
    settings = matrix.merged(run)
    backbone, data = settings["model"]["init_args"]["backbone"], settings["data"]["init_args"]
    given: dict[str, Any] = {
        "trainer.accelerator": "cpu",
        "trainer.devices": num_processes(settings),
        "trainer.num_nodes": 1,
        "trainer.default_root_dir": folder,
    }
    if (backbone["init_args"].get("lora") or {}).get("bits") == 4 and not find_spec("bitsandbytes"):
        given["model.init_args.backbone.init_args.lora.bits"] = 16
    if "scenes" in data:  # pretraining begins at random weights
        given["data.init_args.scenes"] = nameless
    else:
        given["model.init_args.backbone.init_args.checkpoint"] = toys.checkpoint(family(backbone))
    if run.command == "fit" and "train" in data:
        given["data.init_args.train"] = toys.train(data["train"])
        if data.get("val"):
            given["data.init_args.val"] = toys.test(data["val"])
        if data.get("replay_ratio"):
            given["data.init_args.replay"] = toys.replay
    elif "test" in data:
        given["data.init_args.test"] = toys.test(data["test"])
    args = [run.command]
    for name in run.overlays:
        args += ["-c", str(matrix.CONFIGS / f"{name}.yaml")]
    return [*args, *run.settings, *(f"--{key}={value}" for key, value in given.items())]


@pytest.fixture
def result(request, toys, pair, nameless, tmp_path):
    """What a run leaves."""
    run: Run = request.param
    args = arguments(run, toys, tmp_path, nameless)
    alone = num_processes(matrix.merged(run)) == 1
    found = train(args) if alone else pair.train(args)
    return {**found, "run": run, "folder": tmp_path}


def expected_rates(settings: dict[str, Any], world_size: int) -> list[float]:
    """Learning rates of the first steps, from the words of the configs: a share of rising steps, then the schedule."""
    model, data = settings["model"]["init_args"], settings["data"]["init_args"]
    if "lr_adamw" in model:  # two optimizers, whose rates follow the share of batches
        length = math.ceil(data["num_batches"] / world_size)
        return [model["lr"] * schedule(step / length, model["warmup"]) for step in range(NUM_STEPS)]
    images = data["batch_size"] * (1 - data.get("replay_ratio", 0.0))
    batches = int(NUM_SAMPLES / world_size / images) // settings["trainer"]["accumulate_grad_batches"]
    steps = model.get("num_minibatches", 1) * model.get("num_iterations", 1)
    total = batches * settings["trainer"]["max_epochs"] * steps
    rising = round(model["warmup"] * total)
    rates = []
    for step in range(NUM_STEPS):
        falling = 1.0 if model["schedule"] == "constant" else (1 + math.cos(math.pi * (step - rising) / total)) / 2
        if step >= rising and rising:
            falling = (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2
        rates.append(model["optimizer"]["init_args"]["lr"] * ((step + 1) / rising if step < rising else falling))
    return rates


def check_training(found: dict[str, Any], toys: Toys) -> None:
    run, model = found["run"], found["settings"]["model"]["init_args"]
    own = matrix.merged(run)["trainer"]
    strategy = own.get("strategy", "auto")
    assert found["precision"] == own["precision"]
    assert found["world_size"] == num_processes(matrix.merged(run))
    assert isinstance(strategy, str) or strategy["class_path"].endswith(f".{found['strategy']}")
    assert found["clip"] == own.get("gradient_clip_val")
    assert found["not_finite"] == []
    assert {"train/loss", "train/aid"} & found["logged"].keys()
    num_optimizers = 2 if "lr_adamw" in model else 1
    assert found["global_step"] == NUM_STEPS * num_optimizers
    rates = found["rates"][::num_optimizers]
    assert rates == pytest.approx(expected_rates(found["settings"], found["world_size"]), rel=1e-9)
    before = found["folder"] / "random" if num_optimizers == 2 else toys.checkpoint(family(model["backbone"]))
    if num_optimizers == 2:
        Backbone("lab-random").export(before)
    moved = moved_weights(before, found["folder"] / "export")
    settings = model["backbone"]["init_args"]
    seeing = {name for name in moved if "visual" in name or "vision_tower" in name}
    names_only = "NameAlignment" in found["settings"]["model"]["class_path"]
    assert moved - seeing or num_optimizers == 2 or names_only  # which see pictures alone, or begin so
    assert bool(seeing) == (not settings["freeze_vision"])


def moved_weights(before: Path, after: Path) -> set[str]:
    start, end = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert start.keys() == end.keys()
    assert all(bool(value.isfinite().all()) for value in end.values())
    return {name for name, value in end.items() if not value.equal(start[name].to(value.dtype))}


@pytest.mark.parametrize("result", matrix.covering(matrix.trainings(), 1), ids=str, indirect=True)
def test_every_file_trains(result, toys):
    check_training(result, toys)


@pytest.mark.slow
@pytest.mark.parametrize("result", matrix.covering(matrix.trainings(), 2), ids=str, indirect=True)
def test_every_two_files_train_together(result, toys):
    check_training(result, toys)


@pytest.mark.slow
@pytest.mark.parametrize("result", matrix.trainings(), ids=str, indirect=True)
def test_every_combination_trains(result, toys):
    check_training(result, toys)


@pytest.mark.parametrize("result", [*matrix.experiments(), matrix.under_slurm()[0]], ids=str, indirect=True)
def test_an_experiment_trains(result, toys):
    check_training(result, toys)


@pytest.mark.slow
@pytest.mark.parametrize("result", matrix.under_slurm()[1:], ids=str, indirect=True)
def test_an_experiment_trains_under_slurm(result, toys):
    check_training(result, toys)


@pytest.mark.parametrize("result", [run for run in matrix.sweeps() if run.command == "fit"], ids=str, indirect=True)
def test_a_sweep_trains(result, toys):
    check_training(result, toys)


def check_answers(found: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in (found["folder"] / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == NUM_QUESTIONS
    assert all(line["answer"] for line in lines)
    assert found["not_finite"] == []
    if found["run"].command == "test":
        assert found["logged"]["test/n"] == NUM_QUESTIONS


ASKED = [*matrix.covering(matrix.evaluations(), 1), *(run for run in matrix.sweeps() if run.command == "predict")]


@pytest.mark.parametrize("result", ASKED, ids=str, indirect=True)
def test_questions_are_answered(result):
    check_answers(result)
    assert result["precision"] == matrix.merged(result["run"])["trainer"]["precision"]


SMALL_CARD = (  # as configs/backbone/qwen2_vl_2b.yaml says
    "--trainer.precision=bf16-true",
    "--model.init_args.backbone.init_args.dtype=bfloat16",
    "--model.init_args.backbone.init_args.lora={r: 8}",
)
BF16_TRUE = [  # which no file sets; 32-true and bf16-mixed are those of the files
    Run(command, (f"stage/{stage}", "backbone/qwen2_vl_2b", f"strategy/{strategy}", *data), settings)
    for stage in ("cot_sft", "grpo")
    for command, strategy, data, settings in (
        ("fit", "single", (), SMALL_CARD),
        ("fit", "ddp", (), SMALL_CARD[:1]),
        ("fit", "fsdp2", (), SMALL_CARD[:1]),
        ("test", "single", ("data/lab_test",), SMALL_CARD[:1]),
        ("predict", "fsdp2", ("data/kvg_bench",), SMALL_CARD[:1]),
    )
]


@pytest.mark.parametrize("result", BF16_TRUE, ids=str, indirect=True)
def test_weights_in_bfloat16_run(result, toys):
    assert result["precision"] == "bf16-true"
    if result["run"].command == "fit":
        check_training(result, toys)
    else:
        check_answers(result)


def test_every_file_is_tried():
    tried = {name for run in [*matrix.trainings(), *matrix.evaluations()] for name in run.overlays}
    few = {name for run in [*matrix.covering(matrix.trainings(), 1), *ASKED] for name in run.overlays}
    assert few == tried
    tried |= {name for run in [*matrix.experiments(), matrix.under_slurm()[0]] for name in run.overlays} | set(
        matrix.names("sweeps")
    )
    questions = {name for name in matrix.names("sweeps") if "question" in matrix.content(name)}  # see tests/workflow
    tried |= matrix.options()  # see tests/modules/test_card_teacher.py, test_pairs_and_difficulty.py
    tried |= set(matrix.names("logger"))  # see tests/end_to_end/test_loggers.py
    tried |= set(matrix.names("client"))  # see tests/end_to_end/test_served.py
    tried |= set(matrix.NEEDS_VLLM) & set(matrix.names("engine"))
    assert tried - questions == matrix.for_kvg() - questions
