"""Pretraining of a toy base: every part learns, the aids are what they say, and they are gone from the export."""

from __future__ import annotations

import math

import pytest
import torch

from data_modules.lab_pretrain import LabPretrainDataModule
from kvg.backbones.qwen2_vl import Qwen2VLBackbone
from kvg.lab.pretraining import Phase
from kvg.lab.skills import SKILLS
from kvg.modules.pretrain import LabPretrainModule

PHASES = [Phase(0.5, {1: 1.0}, scenes=2), Phase(1.0, {2: 1.0}, dict.fromkeys(SKILLS, 1.0), scenes=2)]


@pytest.fixture
def module(tiny):
    backbone = tiny(max_pixels=None, freeze_vision=False, freeze_projector=False)
    return LabPretrainModule(backbone, edge_layer=1, pointer_layer=2)


@pytest.fixture
def data():
    return LabPretrainDataModule(PHASES, num_batches=4, num_workers=0)


def test_every_part_learns_and_the_export_is_a_plain_model(fit, module, data, tmp_path):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    log = fit(module, data, -1, max_epochs=1)
    assert len(log.steps) == 4
    assert "train/loss" not in log.steps[1]  # pictures alone
    assert all(math.isfinite(value) for step in log.steps for value in step.values())
    still = [name for name, value in module.state_dict().items() if torch.equal(value, before[name])]
    assert still == []
    exported = Qwen2VLBackbone(str(tmp_path / "export"), max_pixels=None).model.state_dict()
    assert exported.keys() == module.backbone.model.state_dict().keys()
    assert all(torch.equal(value, module.backbone.model.state_dict()[name]) for name, value in exported.items())


def test_a_pointer_that_knows_nothing_is_right_by_the_objects_share(module, data):
    """With equal scores the loss is minus the logarithm of the share of tokens that belong to the object."""
    data.connect(module.backbone)
    batch = data.train_dataloader().rows.batch(3)
    for layer in (module.asking, module.asked):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    _, aids, _ = module.losses(batch)
    shares = batch["pointer_to"].float().mean(1)
    assert aids["pointer"].item() == pytest.approx(-shares.log().mean().item(), abs=1e-5)


def test_without_answers_there_is_no_next_token_loss(module, data):
    data.connect(module.backbone)
    early, late = (data.train_dataloader().rows.batch(number) for number in (1, 3))
    assert module.losses(early)[0] is None
    loss, aids, accuracy = module.losses(late)
    assert loss.item() > 1
    assert {"pointer", "x1", "y2", "colour", "part"} <= aids.keys()
    assert aids.keys() == accuracy.keys()
