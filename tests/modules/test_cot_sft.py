"""Stage 1 on toys: it learns what it is shown, the same each time, and answers with what it learnt."""

from __future__ import annotations

import itertools
import math
from functools import partial

import lightning as L
import pytest
import torch

from data_modules import CoTSFTDataModule
from kvg.backbones.answers import read_answers
from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.boxes import iou
from kvg.errors import ConfigError
from kvg.modules.cot_sft import CoTSFTModule

DIRECT = {"target": "answer", "mode": "direct"}


def test_loss_falls_on_one_batch_and_is_the_same_each_time(fit, tiny, adamw, two):
    def run():
        module = CoTSFTModule(tiny(), adamw(3e-3), warmup=0.0, schedule="constant", export=False)
        return fit(module, CoTSFTDataModule(two, batch_size=2), 10)["train/loss"]

    losses = run()
    assert all(math.isfinite(loss) for loss in losses)
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 0.75 * losses[0]
    assert run() == losses


def test_the_gradient_norm_is_logged_before_clipping(fit, tiny, two):
    """A step of plain gradient descent at a rate of 1 moves the weights by the gradient."""

    def run(**clipping):
        module = CoTSFTModule(tiny(), partial(torch.optim.SGD, lr=1.0), warmup=0.0, schedule="constant", export=False)
        before = [p.detach().clone() for p in module.parameters()]
        log = fit(module, CoTSFTDataModule(two, batch_size=2), 1, **clipping)
        moves = [(now.detach() - then).norm() for now, then in zip(module.parameters(), before, strict=True)]
        return log["train/grad_norm"][0], float(torch.stack(moves).norm())

    norm, move = run()
    assert norm == pytest.approx(move, rel=1e-4)
    limit = norm / 2
    assert run(gradient_clip_val=limit) == pytest.approx((norm, limit), rel=1e-4)


def test_what_was_learnt_is_answered_exported_and_measured(fit, tiny, adamw, two, tmp_path):
    """Two pictures learnt by heart: every box right, in validation during the fit and from the export after it."""
    module = CoTSFTModule(tiny(freeze_vision=False), adamw(4e-3), max_new_tokens=32)
    data = CoTSFTDataModule(two, two, batch_size=2, **DIRECT)
    log = fit(module, data, 80, check_val_every_n_epoch=40, num_sanity_val_steps=0)
    assert log["train/loss"][-1] < 0.02
    assert log.steps[-1]["val/iou_acc"] == 1.0
    again = CoTSFTModule(Backbone(str(tmp_path / "export")).eval(), max_new_tokens=32)
    assert again.backbone.trained_mode == "direct"
    data.connect(again.backbone)
    batch = next(iter(data.val_dataloader()[0]))
    generated = again.validation.answer(batch)
    processor = again.backbone.processor
    assert [one.text for one in generated] == [processor.completion(s, "answer") for s in batch.samples]
    boxes = [answer.box_px for answer in read_answers(again.backbone, generated, batch.samples)]
    truth = torch.tensor([s.box_px for s in batch.samples])
    assert (iou(torch.tensor(boxes), truth) > 0.95).all()  # a hundredth is lost to the 0-1000 grid


def test_rate_rises_and_falls_by_hand(fit, tiny, adamw, two):
    """Ten steps, two of them warm-up: 1/2, 1, then half a cosine over eight."""
    rates = []

    def module(schedule):
        made = CoTSFTModule(tiny(), adamw(1.0), warmup=0.2, schedule=schedule, export=False)
        made.on_train_batch_start = lambda *_: rates.append(made.optimizers().param_groups[0]["lr"])
        return made

    fit(module("cosine"), CoTSFTDataModule(two, batch_size=2, **DIRECT), 10)
    assert rates == pytest.approx([0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])
    rates.clear()
    fit(module("constant"), CoTSFTDataModule(two, batch_size=2, **DIRECT), 4)
    assert rates == pytest.approx([1.0, 1.0, 1.0, 1.0])  # a fifth of four steps rounds to one, which is whole


def test_only_what_is_not_frozen_moves(fit, tiny, adamw, two):
    backbone = tiny()
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    fit(CoTSFTModule(backbone, adamw(1e-2), warmup=0.0, export=False), CoTSFTDataModule(two, batch_size=2), 2)
    moved = {n for n, value in backbone.model.state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {n for n in before if "visual" not in n}


def test_adapters_alone_move(fit, tiny, adamw, two, tmp_path):
    backbone = tiny(lora=LoRASettings(r=4))
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    module = CoTSFTModule(backbone, adamw(1e-2), warmup=0.0)
    losses = fit(module, CoTSFTDataModule(two, batch_size=2), 5)["train/loss"]
    assert losses[-1] < losses[0]
    moved = {n for n, value in backbone.model.state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {n for n in before if "lora_" in n}
    assert not any("lora" in n for n in Backbone(str(tmp_path / "export")).state_dict())


@pytest.mark.parametrize(("vision", "projector"), [(True, False), (False, True), (False, False)])
def test_adapters_beside_a_trained_tower(fit, tiny, adamw, two, tmp_path, vision, projector):
    """Adapters take the place of the language model's weights alone; what is not frozen is trained and exported."""
    backbone = tiny(lora=LoRASettings(r=4), freeze_vision=vision, freeze_projector=projector)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    fit(CoTSFTModule(backbone, adamw(1e-2), warmup=0.0), CoTSFTDataModule(two, batch_size=2), 2)
    moved = {n for n, value in backbone.model.state_dict().items() if not torch.equal(value, before[n])}
    merger = {n for n in before if n.startswith("model.visual.merger.")}
    tower = {n for n in before if n.startswith("model.visual.")} - merger
    # A bias of keys moves all scores of a query alike, so that it has no gradient but that of rounding.
    assert {n for n in before if "lora_" in n} <= moved
    assert not any("base_layer" in n or "embed_tokens" in n for n in moved)
    assert bool(tower & moved) == (not vision)
    assert bool(merger & moved) == (not projector)
    exported = Backbone(str(tmp_path / "export")).model.state_dict()
    assert all(torch.equal(exported[n], backbone.model.state_dict()[n]) for n in tower | merger)


def test_adapters_beside_a_trained_tower_go_on_where_they_were(fit, tiny, adamw, two, tmp_path):
    """Three steps, and two with a third after a checkpoint, end in the same weights."""

    def run(steps, **settings):
        backbone = tiny(lora=LoRASettings(r=4), freeze_vision=False, freeze_projector=False)
        module = CoTSFTModule(backbone, adamw(1e-3), warmup=0.0, schedule="constant", export=False)
        fit(module, CoTSFTDataModule(two, batch_size=2), steps, **settings)
        return module

    whole = run(3).state_dict()
    module = run(2)
    module.trainer.save_checkpoint(tmp_path / "two.ckpt")
    again = CoTSFTModule(
        tiny(lora=LoRASettings(r=4), freeze_vision=False, freeze_projector=False), adamw(1e-3), 0.0, "constant",
        export=False,
    )  # fmt: skip
    data = CoTSFTDataModule(two, batch_size=2)
    data.connect(again.backbone)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(again, data, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert all(torch.equal(value, whole[name]) for name, value in again.state_dict().items())


def test_activations_are_recomputed_in_training(fit, tiny, adamw, two):
    """Weights from a folder come in evaluation mode, in which transformers recomputes nothing, and drops nothing."""
    backbone = tiny(gradient_checkpointing=True).eval()
    calls = []
    layer = backbone.model.model.language_model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    fit(CoTSFTModule(backbone, adamw(1e-3), export=False), CoTSFTDataModule(two, batch_size=2), 1)
    assert len(calls) == 2


def test_replayed_text_beside_pictures(fit, tiny, adamw, two, tmp_path):
    (tmp_path / "replay.jsonl").write_text('{"prompt": "Who?", "completion": "the Magpie."}\n{"text": "A Magpie."}\n')
    data = CoTSFTDataModule(two, batch_size=4, replay=str(tmp_path / "replay.jsonl"), replay_ratio=0.5)
    losses = fit(CoTSFTModule(tiny(), adamw(3e-3), warmup=0.0, export=False), data, 6)["train/loss"]
    assert losses[-1] < losses[0]


def test_impossible_settings(tiny, fit, adamw, two):
    with pytest.raises(ConfigError, match=r"data\.mode: 'thinking' is not one of think"):
        CoTSFTDataModule(two, mode="thinking")
    with pytest.raises(ConfigError, match=r"model\.warmup: 1\.5"):
        CoTSFTModule(tiny(), warmup=1.5)
    frozen = tiny()
    frozen.requires_grad_(False)
    with pytest.raises(ConfigError, match="everything is frozen"):
        fit(CoTSFTModule(frozen, adamw(1e-3)), CoTSFTDataModule(two, batch_size=2), 1)
