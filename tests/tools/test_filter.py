"""The difficulty filter with a real model that has learnt three samples by heart and has never seen the others."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from kvg.backbones.qwen2_vl import Qwen2VLBackbone
from kvg.errors import ConfigError
from kvg.lab.world import LabSource
from kvg.shards.reader import ShardFolder
from kvg.shards.writer import ShardWriter
from kvg.synthesis.compositor import Compositor, CompositorConfig
from kvg.tools.main import main

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
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many times faster for so small a model, above all on a busy machine
    backbone = Qwen2VLBackbone("tiny", freeze_vision=False, freeze_projector=False)
    learnt = samples[:LEARNT]
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in learnt]
    batch = backbone.processor.collate(examples, learnt)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=3e-3)
    for _ in range(300):
        loss, _ = backbone.label_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 5e-3:
            break
    torch.set_num_threads(num_threads)
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
        (("--keep-min", 3, "--keep-max", 2), "--keep-min, --keep-max: 3 to 2 is no range"),
        (("--samples", 0), "--samples: 0 must be at least 1"),
        (("--temperature", 0), "--temperature: must be above 0"),
        (("--backbone-class", "kvg.nowhere.Model"), "--backbone-class: 'kvg.nowhere.Model' cannot be imported"),
        (("--backbone-class", "pathlib.Path"), "--backbone-class: 'pathlib.Path' is no backbone"),
        (("--mode", "shout"), "--mode: 'shout' is not one of"),
    ],
)
def test_wrong_options(samples, checkpoint, tmp_path, capsys, options, message):
    source = write(tmp_path / "in", samples[:1])
    assert call(source, tmp_path / "out", checkpoint, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_folder_without_a_model(tmp_path):
    from kvg.tools.filter import load_backbone

    with pytest.raises(ConfigError, match="has no config"):
        load_backbone("kvg.backbones.qwen2_vl.Qwen2VLBackbone", str(tmp_path))
