"""The sizes at which a model is shown pictures: the checkpoint's, unless a config says otherwise, aloud."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import yaml
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import lab_folder, lab_tokenizer
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.picture_settings import PatchSettings, parse_patch_settings
from kvg.backbones.processor import ChatProcessor
from kvg.cli.kvg_data import main as kvg_data
from kvg.errors import ConfigError
from kvg.inference.local import LocalClient

QWEN2_VL = "kvg.backbones.backbone.Backbone"


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> str:
    """A model that was trained at 19,600 pixels, as the lab's are, in mode think."""
    folder = tmp_path_factory.mktemp("export")
    Backbone("tiny").export(folder, "think")
    return str(folder)


@pytest.fixture
def copy(export, tmp_path):
    """The same model, not made by this project, with other picture settings."""

    def make(**settings):
        shutil.copytree(export, tmp_path, dirs_exist_ok=True)
        (tmp_path / "kvg.json").unlink()
        path = tmp_path / "preprocessor_config.json"
        content = {**json.loads(path.read_text()), **settings}
        path.write_text(json.dumps({name: value for name, value in content.items() if value != "left out"}))
        return str(tmp_path)

    return make


def budget(backbone) -> tuple[int, int]:
    return backbone.processor.min_pixels, backbone.processor.max_pixels


def test_nothing_said_is_what_the_export_says(export, caplog):
    assert budget(Backbone(export)) == (784, 19_600)
    assert budget(LocalClient(export).backbone) == (784, 19_600)
    # 280 x 280 pixels are 20 x 20 patches; within 19,600 pixels they are 10 x 10.
    assert Backbone(export).processor.picture(Image.new("RGB", (280, 280))).tensors["grid"].tolist() == [[1, 10, 10]]
    assert not caplog.records


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pixels": 401_408}, "backbone.max_pixels is 401408, but '{}' was trained with 19600"),
        ({"max_pixels": 7840}, "backbone.max_pixels is 7840, but '{}' was trained with 19600"),
        ({"min_pixels": 3136}, "backbone.min_pixels is 3136, but '{}' was trained with 784"),
        ({"max_pixels": 19_600, "min_pixels": 784}, None),
    ],
)
def test_what_contradicts_an_export_is_warned_of(export, settings, message, caplog):
    Backbone(export, **settings)
    assert [record.levelno for record in caplog.records] == ([logging.WARNING] if message else [])
    assert message is None or message.format(export) in caplog.text


@pytest.mark.parametrize(
    ("limit", "warns"), [(401_408, False), (12_845_056, False), (12_845_057, True), (3135, None), (3136, False)]
)
def test_a_config_may_choose_within_the_range_of_a_model_from_elsewhere(copy, limit, warns, caplog):
    folder = copy(size="left out", min_pixels=3136, max_pixels=12_845_056)
    if warns is None:
        with pytest.raises(ConfigError, match=r"backbone\.max_pixels: the checkpoint's min_pixels is 3136"):
            Backbone(folder, max_pixels=limit)
        return
    assert budget(Backbone(folder, max_pixels=limit)) == (3136, limit)
    assert bool(caplog.records) == warns
    assert not warns or ("max_pixels is 12845057" in caplog.text and "allows 12845056" in caplog.text)


def test_other_processes_say_nothing(export, monkeypatch, caplog):
    monkeypatch.setenv("LOCAL_RANK", "1")
    Backbone(export, max_pixels=401_408)
    assert not caplog.records


def test_the_filter_asks_at_the_size_of_the_export_and_warns_of_a_backbone_file(export, tmp_path, lab_shards, caplog):
    lab_shards(tmp_path / "in", 3)
    overlay = tmp_path / "backbone.yaml"
    init = {"class_path": QWEN2_VL, "init_args": {"checkpoint": "x", "max_pixels": 401_408}}
    overlay.write_text(yaml.safe_dump({"model": {"init_args": {"backbone": init}}}))
    command = ["filter", "--in", str(tmp_path / "in"), "--checkpoint", export, "--max-new-tokens", "2"]
    assert kvg_data([*command, "--out", str(tmp_path / "a"), "--keep-min", "0", "--keep-max", "4"]) == 0
    assert "max_pixels" not in caplog.text
    command += ["--config", str(overlay), "--keep-min", "0", "--keep-max", "4"]
    assert kvg_data([*command, "--out", str(tmp_path / "b")]) == 0
    assert f"backbone.max_pixels is 401408, but '{export}' was trained with 19600" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pixels": 0}, "backbone.max_pixels: 0 must be a whole number of at least 784"),
        ({"max_pixels": -5}, "backbone.max_pixels: -5 must be"),
        ({"max_pixels": 783}, "backbone.max_pixels: 783 must be"),
        ({"max_pixels": 19_600.0}, "backbone.max_pixels: 19600.0 must be a whole number"),
        ({"max_pixels": "19600"}, "backbone.max_pixels: '19600' must be a whole number"),
        ({"max_pixels": True}, "backbone.max_pixels: True must be a whole number"),
        ({"min_pixels": 0}, "backbone.min_pixels: 0 must be"),
        ({"min_pixels": -5}, "backbone.min_pixels: -5 must be"),
        ({"min_pixels": float("nan")}, "backbone.min_pixels: nan must be"),
        ({"min_pixels": 20_000, "max_pixels": 19_600}, "backbone.min_pixels: backbone.min_pixels is 20000 and"),
        ({"min_pixels": 20_000}, "backbone.min_pixels is 20000 and the checkpoint's max_pixels is 19600"),
    ],
)
@pytest.mark.parametrize("checkpoint", ["tiny", "export"])
def test_areas_that_cannot_work_end_it_before_the_weights_are_loaded(
    export, checkpoint, settings, message, monkeypatch
):
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(ConfigError, match="backbone") as caught:
        Backbone(export if checkpoint == "export" else checkpoint, **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"shortest_edge": 20_000, "longest_edge": 19_600}}, "shortest_edge: 20000 is above longest_edge"),
        ({"size": {"shortest_edge": 784, "longest_edge": 0}}, "size.longest_edge: 0 must be"),
        ({"size": {"shortest_edge": -5, "longest_edge": 19_600}}, "size.shortest_edge: -5 must be"),
        ({"size": {"shortest_edge": 784, "longest_edge": 19_600.5}}, "size.longest_edge: 19600.5 must be"),
        ({"size": {"shortest_edge": "784", "longest_edge": 19_600}}, "size.shortest_edge: '784' must be"),
        ({"size": {"height": 224, "width": 224}}, "holds neither shortest_edge nor longest_edge"),
        ({"size": 224}, "size: 224 is no mapping"),
        ({"size": [784, 19_600]}, "size: [784, 19600] is no mapping"),
        ({"size": "left out", "min_pixels": 784, "max_pixels": 100}, "longest_edge: 100 must be"),
        ({"min_pixels": True}, "min_pixels: True must be"),
        ({"patch_size": 16, "min_pixels": 3136}, "patch_size is 16, and patch_size in its config.json 14"),
        ({"patch_size": "14"}, "patch_size: '14' must be"),
        ({"merge_size": 0}, "merge_size: 0 must be"),
        ({"merge_size": 4, "min_pixels": 3136}, "merge_size is 4, and spatial_merge_size in its config.json 2"),
        ({"image_std": [0, 0, 0]}, "image_std: 0 must be a number above 0"),
        ({"image_mean": [0.5]}, "image_mean: [0.5] are not three numbers"),
        ({"image_mean": None, "image_std": "half"}, "image_std: 'half' are not three numbers"),
        ({"do_normalize": False}, "do_normalize: False is not True"),
        ({"resample": 0}, "resample: 0 is not 3"),
        ({"rescale_factor": 1}, "rescale_factor: 1 is not 0.00392"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_says_such_things_is_named_with_its_file(copy, settings, message, monkeypatch):
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the weights were loaded"))
    folder = copy(**settings)
    with pytest.raises(ConfigError) as caught:
        Backbone(folder)
    assert f"'{folder}'" in str(caught.value)
    assert "preprocessor_config.json" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}},
        {"min_pixels": 3136, "max_pixels": 12_845_056},
        {"size": {"shortest_edge": 784, "longest_edge": 19_600}, "min_pixels": 3136},
        {"size": {"longest_edge": 19_600, "shortest_edge": 784}, "min_pixels": None, "max_pixels": None},
    ],
)
def test_areas_are_read_as_transformers_reads_them(content):
    ours, theirs = parse_patch_settings(content), Qwen2VLImageProcessorPil(**content)
    assert (ours.min_pixels, ours.max_pixels) == (theirs.size["shortest_edge"], theirs.size["longest_edge"])
    assert (ours.patch_size, ours.merge_size) == (theirs.patch_size, theirs.merge_size)
    assert list(ours.image_mean) == pytest.approx(list(theirs.image_mean))


def test_colours_are_normalised_as_the_checkpoint_says(copy):
    processor = Backbone(copy(image_mean=[0.5] * 3, image_std=[0.5, 0.5, 0.25])).processor
    patches = processor.picture(Image.new("RGB", (28, 28), (255, 0, 255))).tensors["patches"]
    # (1 - 0.5) / 0.5, (0 - 0.5) / 0.5, (1 - 0.5) / 0.25
    channels = processor.pictures.pixel_values(patches).view(len(patches), 3, -1)[0, :, 0]
    assert channels.tolist() == pytest.approx([1.0, -1.0, 2.0])


def test_picture_settings_of_the_newer_file_are_read(copy, tmp_path):
    folder = copy()
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert budget(Backbone(folder)) == (784, 19_600)


def test_the_lab_says_of_itself_what_its_random_models_are_given():
    settings = json.loads((lab_folder() / "preprocessor_config.json").read_text())
    assert parse_patch_settings(settings) == Qwen2VL().tiny_pictures() == PatchSettings(784, 19_600)


def test_a_processor_of_its_own_checks_its_areas():
    with pytest.raises(ConfigError, match="min_pixels: 3136 is above max_pixels, which is 784"):
        ChatProcessor(lab_tokenizer(), Qwen2VL(), PatchSettings(max_pixels=784))
