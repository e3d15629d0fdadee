"""SFT with supervised attention: its loss by the model's own attention, and what it teaches a toy."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from data_modules import CoTSFTDataModule
from kvg.boxes import cell_owners
from kvg.errors import ConfigError
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.guidance import attention_share, guidance_loss
from kvg.modules.guided_sft import GuidedSFTModule
from kvg.text.box_codec import BOX_START
from kvg.text.prompts import REF_END, REF_START

DIRECT = {"target": "answer", "mode": "direct"}


def module_of(backbone, adamw, **settings):
    return GuidedSFTModule(backbone, adamw(3e-3), warmup=0.0, schedule="constant", export=False, **settings)


def training_batch(module, folder, target="answer"):
    mode = "direct" if target == "answer" else "think"
    data = CoTSFTDataModule(folder, batch_size=2, target=target, mode=mode)
    data.connect(module.backbone)
    return next(iter(data.train_dataloader()))


def test_share_and_loss_by_hand():
    scores = torch.log(torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 8.0]]))
    visible = torch.tensor([[True, True, True], [True, True, False]])
    wanted = torch.tensor([[False, True, False], [True, False, True]])
    shares = attention_share(scores, visible, wanted)
    assert shares.tolist() == pytest.approx([2 / 8, 1 / 2])
    assert float(guidance_loss(shares)) == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert float(guidance_loss(torch.zeros(1))) == pytest.approx(-math.log(1e-9))


@pytest.mark.parametrize("share_prefix", [True, False])
def test_loss_is_that_of_transformers_own_attention(tiny, adamw, two, share_prefix, monkeypatch):
    """Weights of eager attention, read from plain transformers row by row, without padding."""
    module = module_of(tiny(attn="eager", share_prefix=share_prefix), adamw, guided_layer=1)
    batch = training_batch(module, two)
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    plain, _ = CoTSFTModule.loss(module, batch)
    total, _ = module.loss(batch)
    processor, model = module.backbone.processor, module.backbone.model
    start, end, box = (processor.ids(mark)[0] for mark in (REF_START, REF_END, BOX_START))
    positions = module.backbone.family.positions(model, batch.input_ids, batch.attention_mask, batch.pictures)
    embeds = module.backbone.inputs(batch).embeds
    shares = []
    for row, sample in enumerate(batch.samples):
        keep = batch.attention_mask[row].bool()
        ids, learnt = batch.input_ids[row][keep].tolist(), (batch.labels[row][keep] != -100).tolist()
        attention = model.model.language_model(
            inputs_embeds=embeds[row : row + 1, keep], position_ids=positions[:, row : row + 1, keep],
            output_attentions=True,
        ).attentions[1][0, 0]  # of the first head  # fmt: skip
        image = [place for place, token in enumerate(ids) if token == processor.image_token_id]
        side = math.isqrt(len(image))
        owners = cell_owners([o.box_px for o in sample.objects], sample.width, sample.height, side, side).tolist()
        target = [place for place, owner in zip(image, owners, strict=True) if owner == sample.target]
        first, last = ids.index(start), ids.index(end)
        answer = next(place for place in range(len(ids)) if learnt[place] and ids[place] == box)
        words = [*range(first, last + 1), *range(answer, len(ids))]
        shares += [float(attention[word, target].sum().detach()) for word in words if word < answer or learnt[word]]
    expected = -sum(math.log(share) for share in shares) / len(shares)
    assert logged["train/guide"] == pytest.approx(expected, rel=1e-4)
    assert float((total - plain).detach()) == pytest.approx(expected, rel=1e-4)


def test_of_a_rationale_only_the_last_box_means_the_object(tiny, adamw, two):
    module = module_of(tiny(), adamw, guided_layer=1)
    batch = training_batch(module, two, "rationale")
    speaks, ends = module._words(batch)
    box = module.backbone.processor.ids(BOX_START)[0]
    for row in range(2):
        boxes = (batch.input_ids[row] == box).nonzero()[:, 0].tolist()
        assert len(boxes) > 1
        assert [bool(speaks[row, place]) for place in boxes] == [False] * (len(boxes) - 1) + [True]
    assert ends.sum(1).tolist() == [1, 1]
    assert not speaks[batch.attention_mask == 0].any()


def test_attention_and_boxes_are_learnt(fit, tiny, adamw, two):
    module = module_of(tiny(freeze_vision=False, freeze_projector=False), adamw, guided_layer=1)
    log = fit(module, CoTSFTDataModule(two, batch_size=2, **DIRECT), 60)
    guide = log["train/guide"]
    assert guide[-1] < 0.3 * guide[0]
    assert log["train/pick_acc"][-1] == 1.0
    assert log["train/loss"][-1] < 0.3 * log["train/loss"][0]
    assert all(math.isfinite(loss) for loss in itertools.chain(guide, log["train/loss"]))


def test_without_weight_it_is_plain_sft(fit, tiny, adamw, two):
    data = {"batch_size": 2, **DIRECT}
    plain = fit(
        CoTSFTModule(tiny(), adamw(3e-3), warmup=0.0, schedule="constant", export=False),
        CoTSFTDataModule(two, **data),
        3,
    )
    none = fit(module_of(tiny(), adamw, guide_weight=0.0, guided_layer=1), CoTSFTDataModule(two, **data), 3)
    assert none["train/loss"] == plain["train/loss"]
    assert F.mse_loss(torch.tensor(none["train/grad_norm"]), torch.tensor(plain["train/grad_norm"])) < 1e-10


@pytest.mark.parametrize(
    ("settings", "field"), [({"guided_layer": 2}, "guided_layer"), ({"guide_weight": -1}, "weight")]
)
def test_wrong_settings_are_refused(tiny, adamw, settings, field):
    with pytest.raises(ConfigError, match=field):
        module_of(tiny(), adamw, **settings)
