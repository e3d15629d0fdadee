"""Pretraining of a toy base: every part learns, the aids are what they say, and they are gone from the export."""

from __future__ import annotations

import math

import pytest
import torch

from data_modules.lab_pretrain import LabPretrainDataModule
from kvg.backbones.backbone import Backbone
from kvg.errors import TrainingError
from kvg.lab.labels import TRAIT_CLASSES
from kvg.lab.pretraining import Phase
from kvg.lab.skills import SKILLS
from kvg.modules.pretrain import LabPretrainModule
from kvg.rl.experience import TrainingBatch

PHASES = [Phase(0.5, scenes=2), Phase(1.0, dict.fromkeys(SKILLS, 1.0), scenes=2)]


@pytest.fixture
def module(tiny):
    backbone = tiny(max_pixels=None, attn="eager", freeze_vision=False, freeze_projector=False)
    return LabPretrainModule(backbone, guided_layer=1)


@pytest.fixture
def data(nameless):
    return LabPretrainDataModule(nameless, PHASES, num_batches=4)


def test_every_part_learns_and_the_export_is_a_plain_model(fit, module, data, tmp_path):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    log = fit(module, data, -1, max_epochs=1)
    assert len(log.steps) == 4
    assert "train/loss" not in log.steps[1]  # pictures alone
    assert all(math.isfinite(value) for step in log.steps for value in step.values())
    still = [name for name, value in module.state_dict().items() if torch.equal(value, before[name])]
    assert still == []
    exported = Backbone(str(tmp_path / "export"), max_pixels=None).model.state_dict()
    assert exported.keys() == module.backbone.model.state_dict().keys()
    assert all(torch.equal(value, module.backbone.model.state_dict()[name]) for name, value in exported.items())


@pytest.fixture
def batches(module, data):
    data.connect(module.backbone)
    return list(data.train_dataloader())


def test_guided_attention_is_that_of_the_model(module, batches):
    """The loss by hand from the weights that transformers' own eager attention reports for the head."""
    batch, seen = batches[3], []
    attention = module.backbone.model.model.language_model.layers[1].self_attn
    hook = attention.register_forward_hook(lambda _m, _a, output: seen.append(output[1][:, 0]))  # [B, L, L]
    _, aids, accuracy = module.losses(batch)
    hook.remove()
    shares = []
    for row, owners in enumerate(batch["owners"]):
        places = (batch["input_ids"][row] == module.backbone.processor.image_token_id).nonzero()[:, 0]
        for position, number in enumerate(batch["about"][row].tolist()):
            if number >= 0 and bool((owners == number).any()):
                shares.append(seen[0][row, position, places[owners == number]].sum())
    shares = torch.stack(shares)
    assert len(shares) > 50
    assert aids["guide"].item() == pytest.approx(-shares.log().mean().item(), abs=1e-4)
    assert accuracy["guide"].item() == pytest.approx((shares > 0.5).float().mean().item())


def test_guidance_moves_the_attention(module, batches):
    batch = batches[3]
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        _, aids, _ = module.losses(batch)
        optimizer.zero_grad()
        aids["guide"].backward()
        optimizer.step()
        values.append(aids["guide"].item())
    assert values[-1] < 0.7 * values[0]


def test_requests_and_pictures_are_read_by_the_same_heads(module, batches):
    """With heads that know nothing every class is equally likely: each loss is the logarithm of their number."""
    for head in module.trait_heads.values():
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    batch = batches[3]
    said = (batch["wanted"] != -100).any(0).any(0).tolist()  # the traits that requests name
    seen = [bool((batch[f"dense_{name}"] != -100).any()) for name in TRAIT_CLASSES]
    number = list(TRAIT_CLASSES.values())
    sizes = [math.log(num) for flags in (said, seen) for num, flag in zip(number, flags, strict=True) if flag]
    _, aids, _ = module.losses(batch)
    assert any(said)
    assert not said[0]  # a request names no category
    assert aids["asked"].item() == pytest.approx(sum(sizes) / len(sizes), abs=1e-5)


def test_without_answers_there_is_no_next_token_loss(module, batches):
    early, late = batches[1], batches[3]
    assert module.losses(early)[0] is None
    loss, aids, accuracy = module.losses(late)
    assert loss.item() > 1
    assert {"guide", "asked", "x1", "y2", "colour", "part"} <= aids.keys()
    assert accuracy.keys() - {"pick"} == aids.keys()


def test_pretraining_stops_before_a_step_that_is_not_finite(fit, module, data, tmp_path):
    with torch.no_grad():
        next(iter(module.trait_heads.values())).weight[0, 0] = math.nan
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(TrainingError, match=r"step 0: loss nan, gradient norm nan: .*step0-rank0-part0\.pt"):
        fit(module, data, -1, max_epochs=1)
    assert all(torch.equal(value.nan_to_num(), before[n].nan_to_num()) for n, value in module.state_dict().items())
    batch = TrainingBatch.load(tmp_path / "failed/step0-rank0-part0.pt").batch
    assert batch["patches"].dtype == torch.uint8
    assert not (tmp_path / "export").exists()
