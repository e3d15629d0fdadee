"""Name alignment: pictures learn their names, the language model stays as it is, and a run resumes with its names."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from data_modules import CoTSFTDataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.boxes import cell_owners
from kvg.errors import ConfigError
from kvg.modules.name_alignment import NameAlignmentModule

DIRECT = {"target": "answer", "mode": "direct"}


@pytest.fixture
def seeing(tiny):
    """A tiny backbone whose vision is trained."""
    return lambda **settings: tiny(**{"freeze_vision": False, "freeze_projector": False} | settings)


def batch_of(module, folder):
    data = CoTSFTDataModule(folder, folder, batch_size=2, **DIRECT)
    data.connect(module.backbone)
    return next(iter(data.val_dataloader()[0]))


def test_owners_of_cells_by_hand():
    """Cells of 10 x 10 pixels; a fifth of one is 20 pixels."""
    covered = [(0.0, 0.0, 12.0, 10.0), (11.0, 0.0, 30.0, 2.0), (0.0, 12.0, 2.0, 21.0)]
    # Cell 1: 2 columns of the first box (20), 9 x 2 of the second (18). Cell 3: 2 x 8 of the third is too little.
    assert cell_owners(covered, 30, 20, 2, 3).tolist() == [0, 0, 1, -1, -1, -1]
    assert cell_owners([], 30, 20, 1, 2).tolist() == [-1, -1]


def test_loss_of_an_untrained_head_by_hand(seeing, adamw, two):
    """The head is the identity: the logits are the dot products of normalised tokens and mean name embeddings."""
    module = NameAlignmentModule(seeing(), adamw(1e-3))
    batch = batch_of(module, two)
    assert [module.names.setdefault(o.entity, len(module.names)) for s in batch.samples for o in s.objects]
    logprobs, target, objects = module.scores(batch)
    table = module.backbone.model.get_input_embeddings().weight.detach()
    means = [table[module.backbone.processor.ids(f" {name}")].mean(0) for name in module.names]
    codes = torch.stack([mean / mean.pow(2).mean().sqrt() for mean in means])
    tokens = module.backbone.see(batch.pictures).tokens.detach()
    assert len(tokens) == sum(batch.pictures.num_tokens)
    first = int(batch.pictures.num_tokens[0])
    sample = batch.samples[0]
    side = math.isqrt(first)
    owners = cell_owners([o.box_px for o in sample.objects], sample.width, sample.height, side, side)
    shown = tokens[:first][owners >= 0]
    shown = shown / shown.pow(2).mean(1, keepdim=True).sqrt()
    expected = (shown @ codes.T / math.sqrt(table.shape[1])).log_softmax(-1)
    torch.testing.assert_close(logprobs[: len(shown)], expected, atol=1e-4, rtol=1e-4)
    names = list(module.names)
    assert [names[t] for t in target[: len(shown)]] == [sample.objects[o].entity for o in owners[owners >= 0]]
    assert objects[: len(shown)].tolist() == owners[owners >= 0].tolist()


def test_pictures_learn_their_names_and_only_vision_moves(fit, seeing, adamw, two, tmp_path):
    module = NameAlignmentModule(seeing(), adamw(3e-3), warmup=0.0)
    before = {name: value.clone() for name, value in module.backbone.model.state_dict().items()}
    data = CoTSFTDataModule(two, two, batch_size=2, **DIRECT)
    log = fit(module, data, 60, check_val_every_n_epoch=30, num_sanity_val_steps=0)
    chance = 1 / len(module.names)
    assert log.steps[0]["train/name_acc"] < 0.7
    assert log.steps[-1]["train/name_acc"] > 0.95
    assert log.steps[-1]["val/name_acc"] == 1.0 > 2 * chance
    moved = {name for name, value in module.backbone.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("model.visual.") for name in moved)
    again = Backbone(str(tmp_path / "export"))
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, module.backbone.model.state_dict()[name]), name


def test_a_name_never_met_in_training_is_wrong(seeing, adamw, two):
    module = NameAlignmentModule(seeing(), adamw(1e-3))
    batch = batch_of(module, two)
    known = batch.samples[0].objects[0].entity
    module.names = {known: 0}
    module.validation_step(batch, 0)
    objects = [o for s in batch.samples for o in s.objects]
    # With one name to choose from, every object gets it.
    assert float(module.accuracy.compute()) == pytest.approx(sum(o.entity == known for o in objects) / len(objects))


def test_a_resumed_run_goes_on_with_the_same_names_and_losses(fit, seeing, adamw, two, tmp_path):
    def run(steps, **settings):
        module = NameAlignmentModule(seeing(), adamw(1e-3), warmup=0.0, schedule="constant", export=False)
        data = CoTSFTDataModule(two, batch_size=1, **DIRECT)
        return module, fit(module, data, steps, **settings)

    whole, log = run(4)
    half, _ = run(2, enable_checkpointing=True)
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    rest = NameAlignmentModule(seeing(), adamw(1e-3), warmup=0.0, schedule="constant", export=False)
    state = torch.load(checkpoint, weights_only=True)
    rest.on_load_checkpoint(state)
    assert list(rest.names) == list(half.names) == list(whole.names)[: len(half.names)]
    rest.load_state_dict(state["state_dict"], strict=False)  # what is frozen is not in it
    torch.testing.assert_close(rest.head.weight, half.head.weight)
    assert len(log["train/loss"]) == 4


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"freeze_vision": True, "freeze_projector": True}, "freeze_vision"), ({"lora": LoRASettings()}, "lora")],
)
def test_what_cannot_be_trained_is_refused(seeing, adamw, settings, field):
    with pytest.raises(ConfigError, match=field):
        NameAlignmentModule(seeing(**settings), adamw(1e-3))


def test_a_backbone_without_a_grid_of_tokens_is_refused(seeing, adamw, two, monkeypatch):
    module = NameAlignmentModule(seeing(), adamw(1e-3))
    batch = batch_of(module, two)
    with pytest.raises(ConfigError, match="no single grid"):
        module.scores(replace(batch, pictures=None))
