"""The true 2B shapes with random weights, run by a user's commands: both stages with LoRA in bfloat16, and exports.

    pytest -s -m slow tests/end_to_end/test_true_size.py

It takes up to 20 GB of memory and 25 GB of disk. Each command is a process of its own whose peak and time are printed.
Full fine-tuning of that shape in float32 takes 30 GB (weights 9, gradients 7, AdamW's moments 14), so it is run with
fewer layers.
"""

from __future__ import annotations

import gc
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForImageTextToText

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.backbones.weight_files import current_name
from tests.benchmarks.true_shapes import write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SMALL_CARD = ["--trainer.precision=bf16-true", "--model.backbone.dtype=bfloat16", "--model.backbone.lora={r: 8}"]
LIMIT_GIB = 22
NUM_LINEAR = 7  # of a layer that get adapters


@dataclass(frozen=True)
class Case:
    """A model and how its trainings are called.

    Attributes:
        size: of ``kvg/planning/sizes``.
        stages: configs and options of each stage.
        lora: settings of its adapters.
    """

    size: str
    stages: dict[str, list[str]]
    lora: LoRASettings


def config(*names: str) -> list[str]:
    return [word for name in names for word in ("-c", f"configs/{name}.yaml")]


CASES = {
    "qwen2_vl": Case(  # by the configs of the experiment
        "Qwen2-VL-2B",
        {
            "cot_sft": config("experiment/qwen2_vl_2b_lora_cot_sft"),
            "grpo": config("experiment/qwen2_vl_2b_lora_grpo"),
        },
        LoRASettings(r=16, alpha=32),
    ),
    "qwen3_vl": Case(  # by the lines in the head of its backbone's config
        "Qwen3-VL-2B",
        {
            "cot_sft": [*config("stage/cot_sft", "backbone/qwen3_vl_2b"), *SMALL_CARD],
            "grpo": [*config("stage/grpo", "backbone/qwen3_vl_2b"), *SMALL_CARD],
        },
        LoRASettings(r=8),
    ),
}


def kvg(name: str, *args: object) -> float:
    """Runs ``kvg ARGS`` in a process of its own; prints and returns its peak memory in GiB, mapped files included.

    The system's own account of a child (``ru_maxrss``) begins with the peak of the process that started it.
    """
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    peaks = {"VmHWM": 0.0, "RssAnon": 0.0}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", "kvg", *map(str, args)], stdout=log, stderr=log)
        while process.poll() is None:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                field, _, value = line.partition(":")
                if field in peaks:
                    peaks[field] = max(peaks[field], int(value.split()[0]) / 2**20)
            time.sleep(0.02)
        log.seek(0)
        said = log.read()
    assert process.returncode == 0, said[-4000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    memory = f"{peaks['VmHWM']:.2f} GiB, {peaks['RssAnon']:.2f} without mapped files"
    print(f"\n{name}: {memory}; {cpu:.0f} s of CPU, {time.perf_counter() - began:.0f} s")
    assert peaks["VmHWM"] < LIMIT_GIB
    return peaks["VmHWM"]


def fit(name: str, folder: Path, checkpoint: Path, data: str, *args: object) -> float:
    place = [f"--trainer.default_root_dir={folder}", f"--model.backbone.checkpoint={checkpoint}"]
    place += [f"--data.init_args.train={data}", "--data.init_args.num_workers=0", "--trainer.accelerator=cpu"]
    return kvg(name, "fit", *args, *place, "--trainer.log_every_n_steps=1")


def free_gib() -> float:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 2**20


def losses(folder: Path) -> list[float]:
    (version,) = (folder / "lightning_logs").iterdir()
    events = EventAccumulator(str(version))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


def same_files(one: Path, other: Path) -> bool:
    """Whether two files of weights hold the same tensors, bit by bit; one tensor is in memory at a time."""
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        names = set(first.keys())
        return names == set(second.keys()) and all(first.get_tensor(n).equal(second.get_tensor(n)) for n in names)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("true-size")


@pytest.fixture(scope="module")
def data(root, lab_shards) -> str:
    return lab_shards(root / "data", 4, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def checkpoint(root, case) -> Iterator[Path]:
    yield write(root / case.size, case.size)
    shutil.rmtree(root / case.size)


@pytest.fixture(scope="module")
def stage1(root, case, checkpoint, data) -> Iterator[Path]:
    folder = root / f"{case.size}-stage1"
    steps = ["--data.init_args.batch_size=1", "--trainer.accumulate_grad_batches=1", "--trainer.max_steps=2"]
    fit(f"{case.size} stage 1", folder, checkpoint, data, *case.stages["cot_sft"], *steps)
    yield folder
    shutil.rmtree(folder)


def last(folder: Path) -> Path:
    return folder / "lightning_logs/version_0/checkpoints/last.ckpt"


def test_stage_1_trains_adapters_and_merges_them(case, stage1, checkpoint):
    """Of all tensors only those of the language model's layers are others, by what its adapters have learnt."""
    assert len(losses(stage1)) == 2
    saved = torch.load(last(stage1), weights_only=True)["state_dict"]
    learnt = {name.removeprefix("backbone.model."): value.float() for name, value in saved.items()}
    ups = {name: value for name, value in learnt.items() if ".lora_B." in name}
    assert len(ups) == 28 * NUM_LINEAR
    assert all(bool(up.isfinite().all() and up.abs().max() > 0) for up in ups.values())
    num_adapted = 0
    with (
        safe_open(checkpoint / "model.safetensors", "pt") as before,
        safe_open(stage1 / "export/model.safetensors", "pt") as after,
    ):
        assert set(before.keys()) == set(after.keys())
        for name in before.keys():  # noqa: SIM118  (safe_open is no mapping)
            start, end = before.get_tensor(name), after.get_tensor(name)
            assert end.dtype == torch.bfloat16
            stem = current_name(name).removesuffix(".weight")
            up, down = (learnt.get(f"{stem}.lora_{half}.default.weight") for half in "BA")
            if up is not None and down is not None:
                start = (start.float() + case.lora.scale * up @ down).to(torch.bfloat16)
                num_adapted += 1
            assert end.equal(start), name
    assert num_adapted == 28 * NUM_LINEAR


def test_the_command_exports_the_same_from_the_checkpoint(case, stage1, root):
    out = root / f"{case.size}-out"
    gib = kvg(f"{case.size} kvg export", "export", last(stage1), "--out", out)
    assert gib < 4.5  # below the weights alone and one file
    assert same_files(out / "model.safetensors", stage1 / "export/model.safetensors")
    shutil.rmtree(out)


def test_transformers_reads_the_export_with_the_same_logits(case, stage1, scenes):
    """Weights are the same bit by bit; logits are off by rounding, probably of the product that embeds patches."""
    ours = Backbone(str(stage1 / "export"), dtype="float32", max_pixels=19_600).eval()
    (sample,) = scenes(1, sizes=[(84, 84)], snap_px=None)
    processor = ours.processor
    batch = processor.collate([processor.encode(sample, mode="think", target=None)], [sample])
    with torch.no_grad():
        expected = ours.logits(batch)
    del ours
    gc.collect()  # its modules refer to each other
    plain = AutoModelForImageTextToText.from_pretrained(stage1 / "export", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = plain(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pixel_values=processor.pictures.pixel_values(batch.pictures.tensors["patches"]).to(plain.dtype),
            image_grid_thw=batch.pictures.tensors["grid"],
            mm_token_type_ids=(batch.input_ids == processor.image_token_id).int(),
        ).logits
    difference = float((logits - expected).abs().max())
    print(f"\n{case.size}: largest difference {difference}, largest logit {float(logits.abs().max()):.2f}")
    assert logits.std() > 0.1
    assert difference < 1e-4


def test_stage_2_goes_on_from_there(case, stage1, root, data):
    folder = root / f"{case.size}-stage2"
    steps = ["--data.init_args.batch_size=1", "--model.group_size=2", "--model.max_new_tokens=16"]
    steps += ["--trainer.max_steps=1"]
    fit(f"{case.size} stage 2", folder, stage1 / "export", data, *case.stages["grpo"], *steps)
    assert len(losses(folder)) == 1
    assert (folder / "export/model.safetensors").stat().st_size > 4 * 10**9
    shutil.rmtree(folder)


@pytest.mark.parametrize("num_layers", [28, 4])
def test_the_walk_of_the_readme(num_layers, root, data):
    """Command 5 in its own precision and float32, the hub's name replaced by a folder."""
    needed = 20 if num_layers == 28 else 16
    if free_gib() < needed:
        pytest.skip(f"needs {needed} GiB of free memory, there are {free_gib():.0f}")
    checkpoint = write(root / f"walk-{num_layers}-model", "Qwen2-VL-2B", num_layers=num_layers)
    args = config("stage/cot_sft", "backbone/qwen2_vl_2b")
    args += ["--model.backbone.lora={r: 8}"] if num_layers == 28 else []
    args += ["--data.init_args.val", data, "--data.batch_size=2", "--model.max_new_tokens=4"]
    run = root / f"walk-{num_layers}"
    fit(
        f"walk, {num_layers} layers",
        run,
        checkpoint,
        data,
        *args,
        "--trainer.max_steps=2",
        "--trainer.limit_val_batches=1",
    )
    assert len(losses(run)) == 2
    assert (run / "export/model.safetensors").is_file()


def test_7b_learns_a_step_from_its_parts(root, data):
    """Weights of 15.5 GiB in four files, as published, on a machine of 22 GiB; the adapters are written alone."""
    if free_gib() < 20 or shutil.disk_usage(root).free < 20 * 2**30:
        pytest.skip("needs 20 GiB of free memory and of disk")
    checkpoint, run = write(root / "7b", "Qwen2-VL-7B"), root / "7b-run"
    try:
        assert len(list(checkpoint.glob("model-0000*-of-00004.safetensors"))) == 4
        args = [*config("stage/cot_sft", "backbone/qwen2_vl_7b"), *SMALL_CARD, "--data.init_args.batch_size=1"]
        args += ["--trainer.max_steps=1", "--model.export=false"]
        fit("Qwen2-VL-7B stage 1", run, checkpoint, data, *args)
        assert len(losses(run)) == 1
        gib = kvg("Qwen2-VL-7B kvg export --adapter", "export", last(run), "--out", run / "adapter", "--adapter")
        assert gib < 4
    finally:
        shutil.rmtree(checkpoint)
