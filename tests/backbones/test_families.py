"""Families are found by the names of their files, and one of a user's own takes the place of such a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.find_family import family_of_type, find_family, known_families
from kvg.errors import ConfigError
from kvg.text.prompts import PromptFormat
from kvg.training.lightning_cli import KVGCLI

CONFIGS = Path(__file__).parents[2] / "configs"


class Plain(Qwen2VL):
    """Marks names by quotes, and calls itself by a name that transformers knows."""

    prompt_format = PromptFormat("'", "'")


def test_each_file_is_the_family_of_its_name(tmp_path):
    assert {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "internvl"} <= set(known_families())
    for name in known_families():
        assert family_of_type(name).model_type == name
        (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
        assert type(find_family(str(tmp_path))) is type(family_of_type(name))


def test_names_of_this_package_have_their_family():
    assert type(find_family("lab")) is type(find_family("lab-random")) is type(find_family("tiny")) is Qwen2VL
    with pytest.raises(ConfigError, match=r"'lab' holds a qwen2_vl model, not qwen3_vl; leave backbone\.family out"):
        find_family("lab", family_of_type("qwen3_vl"))


@pytest.mark.parametrize("name", known_families())
def test_every_layer_is_sharded_for_itself(name):
    backbone = Backbone("tiny", family_of_type(name))
    units = backbone.family.fsdp_units(backbone.model)
    assert len({id(unit) for unit in units}) == len(units)
    lists = [module for module in backbone.model.modules() if isinstance(module, torch.nn.ModuleList)]
    layers = {id(layer) for own in lists for layer in own if hasattr(layer, "mlp") or hasattr(layer, "attn")}
    assert layers == {id(unit) for unit in units}


def test_a_family_of_ones_own_marks_names_in_its_own_way(scenes):
    (sample,) = scenes(1)
    for family, start, end in ((Qwen2VL(), "<|object_ref_start|>", "<|object_ref_end|>"), (Plain(), "'", "'")):
        processor = Backbone("tiny", family).processor
        text = processor.tokenizer.decode(processor.encode(sample, mode="direct", target=None).input_ids)
        assert f"Find and give the bounding box of {start}{sample.entity}{end}<|im_end|>" in text


def test_a_config_names_a_family_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_family.py").write_text(
        "from kvg.backbones.families.qwen2_vl import Qwen2VL\n\n\nclass Mine(Qwen2VL):\n    pass\n"
    )
    overlay = {"model": {"init_args": {"backbone": {"init_args": {"family": {"class_path": "my_family.Mine"}}}}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(overlay))
    files = [CONFIGS / "stage/cot_sft.yaml", CONFIGS / "backbone/tiny.yaml", "mine.yaml"]
    args = [word for file in files for word in ("-c", str(file))]
    cli = KVGCLI([*args, "--trainer.accelerator=cpu", "--trainer.logger=false"], run=False)
    assert type(cli.model.backbone.family).__name__ == "Mine"
