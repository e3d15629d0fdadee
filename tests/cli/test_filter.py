"""The difficulty filter with a real model that has learnt three samples by heart and has never seen the others."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time

import pytest
import torch
import yaml

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.cli.kvg_data import main
from kvg.composites.compositor import Compositor
from kvg.composites.settings import CompositorConfig
from kvg.errors import ConfigError
from kvg.inference.local import LocalClient
from kvg.inference.local_module import build_backbone
from kvg.inference.local_settings import BACKBONE_CLASS, backbone_setting
from kvg.lab.world import LabSource
from kvg.pipeline.filter import filter_set
from kvg.pipeline.settings.filter import FilterSettings
from kvg.shards.reader import ShardFolder
from kvg.shards.writer import ShardWriter
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.text.prompts import PromptFormat
from tests.by_heart import learn_by_heart
from tests.cli.conftest import outputs
from tests.work.killing import children, lives

LEARNT = 3


@pytest.fixture(scope="module")
def samples():
    config = CompositorConfig(canvas_sizes=((56, 56),), k_weights={2: 1.0}, gap=0, snap_px=7, image_format="png")
    compositor = Compositor(LabSource(["bird"], variants=2), config)
    found = {}  # one sample an entity, so that what is learnt of one cannot help with another
    for index in range(60):
        sample = compositor.sample(index)
        found.setdefault(sample.entity, sample)
    return list(found.values())[: LEARNT + 3]


@pytest.fixture(scope="module")
def checkpoint(samples, tmp_path_factory):
    torch.manual_seed(0)
    backbone = Backbone("tiny", freeze_vision=False, freeze_projector=False)
    learnt = samples[:LEARNT]
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in learnt]
    learn_by_heart(backbone, backbone.processor.collate(examples, learnt))
    folder = tmp_path_factory.mktemp("filter") / "export"
    backbone.export(folder)
    return folder


def write(folder, samples):
    with ShardWriter(folder, 2, seed=5, config={"made": "here"}) as writer:
        for sample in samples:
            writer.write(sample)
    return folder


def call(source, out, checkpoint, *options):
    required = ["filter", "--in", source, "--out", out, "--checkpoint", checkpoint, "--mode", "direct"]
    return main([str(a) for a in (*required, "--max-new-tokens", 40, "--batch-size", 4, *options)])


def read(folder):
    return [s for part in ShardFolder(folder).parts() for _, s in part.read()]


def test_keeps_what_is_right_as_often_as_asked(samples, checkpoint, tmp_path, capsys):
    source = write(tmp_path / "in", samples)
    assert call(source, tmp_path / "easy", checkpoint, "--keep-min", 4, "--keep-max", 4, "--temperature", 0.3) == 0
    out = capsys.readouterr().out
    assert f"kept {LEARNT} of {len(samples)}" in out
    kept = read(tmp_path / "easy")
    assert [s.key for s in kept] == [s.key for s in samples[:LEARNT]]
    assert all((s.provenance["num_right"], s.provenance["num_tries"]) == (4, 4) for s in kept)
    assert [dataclasses.replace(s, provenance={}) for s in kept] == [
        dataclasses.replace(s, provenance={}) for s in samples[:LEARNT]
    ]
    record = json.loads((tmp_path / "easy/filter.json").read_text())
    assert record["right"]["4"] == LEARNT
    assert sum(record["right"].values()) == record["num_tried"] == len(samples)
    assert record["num_kept"] == LEARNT
    manifest = ShardFolder(tmp_path / "easy").manifest
    assert (manifest.seed, manifest.config["made"], manifest.config["filter"]["samples"]) == (5, "here", 4)


class QuotesNames(Qwen2VL):
    """A family of a user's own."""

    prompt_format = PromptFormat("'", "'")


def test_names_are_marked_as_the_models_family_marks_them(samples, tmp_path):
    family = {"class_path": f"{__name__}.QuotesNames"}
    client = LocalClient({"class_path": BACKBONE_CLASS, "init_args": {"checkpoint": "tiny", "family": family}})
    texts = []

    def ask(requests, *_):
        texts.extend(request.text for request in requests)
        raise KeyboardInterrupt

    client.ask = ask
    source = write(tmp_path / "in", samples[:1])
    with pytest.raises(KeyboardInterrupt):
        filter_set(source, tmp_path / "out", FilterSettings(mode="direct"), client=client)
    assert texts == [f"Find and give the bounding box of '{samples[0].entity}'"]


def test_always_right_and_never_right_are_dropped(samples, checkpoint, tmp_path, capsys):
    source = write(tmp_path / "in", samples[:LEARNT])
    assert call(source, tmp_path / "none", checkpoint, "--temperature", 0.05) == 2
    assert f"keeps nothing: {LEARNT} with 4/4 right" in capsys.readouterr().err
    assert not (tmp_path / "none/manifest.json").exists()


def test_a_bad_picture_is_counted_and_passed_over(samples, checkpoint, tmp_path, capsys):
    png = samples[1].image
    broken = png[:200] + bytes(60) + png[260:]  # ends as it should, so only decoding it shows the damage
    source = write(tmp_path / "in", [samples[0], dataclasses.replace(samples[1], image=broken), samples[2]])
    assert call(source, tmp_path / "out", checkpoint, "--keep-min", 0, "--keep-max", 4) == 0
    assert "kept 2 of 2" in (out := capsys.readouterr().out)
    assert "1 bad samples" in out
    assert [s.key for s in read(tmp_path / "out")] == [samples[0].key, samples[2].key]


def test_limit_and_seed(samples, checkpoint, tmp_path):
    source = write(tmp_path / "in", samples)
    everything = ("--keep-min", 0, "--keep-max", 4, "--temperature", 3, "--limit", 5)
    for name in "ab":
        call(source, tmp_path / name, checkpoint, *everything)
    first, second = (read(tmp_path / name) for name in "ab")
    assert len(first) == 5
    assert first == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-min", 3, "--keep-max", 2), "--keep-min, --keep-max: 3 to 2 is not a range"),
        (("--samples", 0), "--samples: 0 must be at least 1"),
        (("--temperature", 0), "--temperature: must be above 0"),
        (("--mode", "shout"), "--mode: 'shout' is not one of"),
    ],
)
def test_wrong_options(samples, checkpoint, tmp_path, capsys, options, message):
    source = write(tmp_path / "in", samples[:1])
    assert call(source, tmp_path / "out", checkpoint, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ConfigError, match="has no config"):
        build_backbone(backbone_setting(str(tmp_path)))


def write_yaml(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_served_model_answers_in_its_own_convention(samples, tmp_path, capsys):
    source = write(tmp_path / "in", samples[:2])
    size = ImageSize(56, 56, 56, 56)
    first, second = (RelativeCodec().encode(sample.box_px, size) for sample in samples[:2])
    assert first != second
    answers = [f"<think>so</think><answer>{first}</answer>", first, "no idea", f"<think>so</think><answer>{second}"]
    path = write_yaml(
        tmp_path / "client.yaml",
        {"class_path": "tests.cli.clients.Parrot", "init_args": {"answers": answers}},
    )
    options = ["filter", "--in", source, "--out", tmp_path / "out", "--client", path, "--mode", "direct"]
    assert main([str(option) for option in options]) == 0
    said = capsys.readouterr().out
    assert (
        "kept 1 of 2" in said
    )  # to the first sample two of four are right, to the second none: that one is not closed
    assert "parroted" in said
    (kept,) = read(tmp_path / "out")
    assert (kept.key, kept.provenance["num_right"]) == (samples[0].key, 2)
    pixels = [json.dumps({"bbox_2d": [round(2 * value) for value in samples[0].box_px]})]
    path = write_yaml(
        tmp_path / "pixels.yaml",
        {"client": {"class_path": "tests.cli.clients.Parrot", "init_args": {"answers": pixels}}},
    )
    options = [*options[:4], tmp_path / "pixels", "--client", path, "--keep-min", 4, "--keep-max", 4]
    # This server shows its model pictures of at least 112x112 pixels, so 56x56 px become 112x112.
    assert main([str(o) for o in (*options, "--codec", "absolute", "--max-pixels", 12544, "--min-pixels", 12544)]) == 0
    assert [sample.key for sample in read(tmp_path / "pixels")] == [samples[0].key]


def test_an_overlay_brings_backbone_and_trainer(samples, checkpoint, tmp_path):
    source = write(tmp_path / "in", samples)
    everything = ("--keep-min", 0, "--keep-max", 4, "--temperature", 3)
    assert call(source, tmp_path / "plain", checkpoint, *everything) == 0
    overlay = {
        "model": {"init_args": {"backbone": {"init_args": {"gradient_checkpointing": True, "max_pixels": 19600}}}},
        "trainer": {"gradient_clip_val": None, "strategy": "auto"},
    }
    path = write_yaml(tmp_path / "overlay.yaml", overlay)
    shipped = ("--config", "configs/backbone/tiny.yaml", "--strategy", "configs/strategy/single.yaml")
    assert call(source, tmp_path / "overlaid", checkpoint, *everything, *shipped, "--config", path) == 0
    assert read(tmp_path / "overlaid") == read(tmp_path / "plain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", 0), "--samples: 0 must be at least 1"),
        (("--mode", "shout"), "--mode: 'shout' is not one of"),
        (("--iou", 1.5), "--iou: 1.5 is not within 0 to 1"),
        (("--config", "nowhere.yaml"), "-c nowhere.yaml: no such file"),
        (("--client", "nowhere.yaml"), "--temperature: cannot be combined with --client"),
    ],
)
def test_wrong_options_stop_before_torch_is_imported(tmp_path, options, message):
    needed = ["filter", "--in", "nowhere", "--out", str(tmp_path), "--checkpoint", "lab", "--temperature", "1"]
    code = (
        "import sys; from kvg.cli.kvg_data import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules or 'lightning' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, *needed, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def command(source, out, checkpoint, *options):
    needed = ["--in", source, "--out", out, "--checkpoint", checkpoint, "--mode", "direct", "--max-new-tokens", 40]
    kept = ["--batch-size", 1, "--keep-min", 0, "--keep-max", 4]
    return [sys.executable, "-m", "kvg.cli.kvg_data", "filter", *map(str, (*needed, *kept, *options))]


def strategy(folder, class_path):
    trainer = {"accelerator": "cpu", "devices": 2, "strategy": {"class_path": class_path}}
    return "--strategy", write_yaml(folder / "strategy.yaml", {"trainer": trainer})


@pytest.fixture(scope="module")
def whole(checkpoint, samples, tmp_path_factory):
    """Many samples and what one process makes of them without being interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    many = [dataclasses.replace(s, key=f"{s.key}-{n}") for n in range(8) for s in samples]
    source = write(folder / "in", many)
    subprocess.run(command(source, folder / "out", checkpoint), check=True, capture_output=True)
    return source, outputs(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    "class_path", ["lightning.pytorch.strategies.DDPStrategy", "kvg.modules.sharding.FSDP2Strategy"]
)
def test_two_processes_keep_the_same_as_one(whole, checkpoint, tmp_path, class_path):
    source, expected = whole
    run = command(source, tmp_path / "out", checkpoint, *strategy(tmp_path, class_path))
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path / "out") == expected
    assert done.stdout.count("kept 48 of 48") == 1  # the other process says nothing


@pytest.mark.slow
@pytest.mark.timeout(900)  # five starts of two processes, on a machine that may be busy
def test_a_killed_filter_of_two_processes_goes_on_and_leaves_none_behind(whole, checkpoint, tmp_path):
    source, expected = whole
    out = tmp_path / "out"
    run = command(source, out, checkpoint, *strategy(tmp_path, "lightning.pytorch.strategies.DDPStrategy"))
    rng, struck = random.Random(0), 0
    for goal in (0, 3, 9, 20):  # answered batches that are waited for; at first a kill while it starts
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("filter.units/0/*.json"))) < goal:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1) if goal else 5.0)
        left = list(children(process.pid))
        struck += process.poll() is None
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while any(lives(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(lives(pid) for pid in left)
    assert struck >= 3
    assert len(list(out.glob("filter.units/0/*.json"))) >= 20
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.wait() == 0, process.stderr.read()
    assert outputs(out) == expected
    assert not (out / "filter.units").exists()
