"""Qwen2-VL-2B's true shape with random weights, as a user would run it: both stages, and the walk of the README.

It takes up to 20 GB of memory and 10 minutes on two cores. Full fine-tuning of that shape in float32 takes 30 GB
(weights 9, gradients 7, AdamW's moments 14), so it is run with fewer layers.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Qwen2VLForConditionalGeneration

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from tests.benchmarks.checkpoints import REAL_VOCABULARY, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
LORA = "--model.backbone.lora={r: 8}"
SMALL_CARD = ["--trainer.precision=bf16-true", "--model.backbone.dtype=bfloat16", LORA]
SETTINGS = LoRASettings(r=8)
LIMIT_GIB = 24


def kvg(command: str, stage: str, folder: Path, *args: object) -> float:
    """Runs ``kvg COMMAND`` in a process of its own; returns its peak memory in GiB."""
    words = [command, "-c", f"configs/stage/{stage}.yaml", "-c", "configs/backbone/qwen2_vl_2b.yaml"]
    words += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={folder}", "--trainer.log_every_n_steps=1"]
    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kvg", *words, *map(str, args)], stdout=stream, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()[-4000:]
    gib = usage.ru_maxrss / 2**20
    print(f"{folder.name}: {gib:.1f} GiB, {usage.ru_utime + usage.ru_stime:.0f} s of CPU")
    return gib


def free_gib() -> float:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 2**20


def losses(folder: Path) -> list[float]:
    (version,) = (folder / "lightning_logs").iterdir()
    events = EventAccumulator(str(version))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("true-size")


@pytest.fixture(scope="module")
def data(root, lab_shards) -> str:
    return lab_shards(root / "data", 4, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="module")
def checkpoint(root) -> Path:
    return build(root / "2b", "2b", REAL_VOCABULARY, "bfloat16")


@pytest.fixture(scope="module")
def stage1(root, checkpoint, data) -> Path:
    given = [f"--model.backbone.checkpoint={checkpoint}", f"--data.train={data}", "--data.batch_size=1"]
    gib = kvg("fit", "cot_sft", root / "stage1", *given, *SMALL_CARD, "--trainer.max_steps=2")
    assert gib < LIMIT_GIB
    return root / "stage1"


def test_stage_1_trains_adapters_and_merges_them(stage1, checkpoint):
    """Of all tensors only those of the language model's layers are others, by what its adapters have learnt."""
    assert len(losses(stage1)) == 2
    saved = torch.load(stage1 / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    learnt = {name.removeprefix("backbone.model."): value.float() for name, value in saved.items()}
    ups = {name: value for name, value in learnt.items() if ".lora_B." in name}
    assert len(ups) == 28 * 7
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
            stem = name.removesuffix(".weight").replace("model.layers", "model.language_model.layers")
            up, down = (learnt.get(f"{stem}.lora_{half}.default.weight") for half in "BA")
            if up is not None and down is not None:
                start = (start.float() + SETTINGS.alpha / SETTINGS.r * up @ down).to(torch.bfloat16)
                num_adapted += 1
            assert end.equal(start), name
    assert num_adapted == 28 * 7


def test_transformers_reads_the_export_as_it_is(stage1, scenes):
    """Logits of plain transformers are those of this project; in float32, as bfloat16 rounds in every layer."""
    ours = Backbone(str(stage1 / "export"), dtype="float32", max_pixels=19_600).eval()
    assert ours.model.config.text_config.vocab_size == REAL_VOCABULARY
    (sample,) = scenes(1, sizes=[(84, 84)], snap_px=None)
    batch = ours.processor.collate([ours.processor.encode(sample, mode="think", target=None)], [sample])
    with torch.no_grad():
        expected = ours.logits(batch)
    del ours
    gc.collect()  # its modules refer to each other
    plain = Qwen2VLForConditionalGeneration.from_pretrained(stage1 / "export", dtype=torch.float32).eval()
    processor = Backbone("tiny").processor
    with torch.no_grad():
        logits = plain(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pixel_values=processor.pictures.pixel_values(batch.pictures.tensors["patches"]),
            image_grid_thw=batch.pictures.tensors["grid"],
            mm_token_type_ids=(batch.input_ids == processor.image_token_id).int(),
        ).logits
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


def test_stage_2_goes_on_from_there(stage1, root, data):
    given = [f"--model.backbone.checkpoint={stage1 / 'export'}", f"--data.train={data}", "--data.batch_size=1"]
    given += ["--model.group_size=2", "--model.max_new_tokens=16", "--trainer.max_steps=1"]
    gib = kvg("fit", "grpo", root / "stage2", *given, *SMALL_CARD)
    assert gib < LIMIT_GIB
    assert len(losses(root / "stage2")) == 1
    assert (root / "stage2/export/model.safetensors").stat().st_size > 4 * 10**9


@pytest.mark.parametrize(("num_layers", "more"), [(28, [LORA]), (4, [])], ids=["adapters", "four-layers"])
def test_the_walk_of_the_readme(num_layers, more, root, checkpoint, data):
    """Command 5 in its own precision and float32, the hub's name replaced by a folder."""
    needed = 20 if num_layers == 28 else 16
    if free_gib() < needed:
        pytest.skip(f"needs {needed} GiB of free memory, there are {free_gib():.0f}")
    folder = checkpoint if num_layers == 28 else build(root / "four", "2b", REAL_VOCABULARY, num_layers=num_layers)
    given = ["--data.init_args.train", data, "--data.init_args.val", data]
    given += [f"--model.backbone.checkpoint={folder}", "--data.batch_size=2", "--model.max_new_tokens=4"]
    run = root / f"walk-{num_layers}"
    gib = kvg("fit", "cot_sft", run, *given, *more, "--trainer.max_steps=2", "--trainer.limit_val_batches=1")
    assert gib < LIMIT_GIB
    assert len(losses(run)) == 2
    assert (run / "export/model.safetensors").is_file()
