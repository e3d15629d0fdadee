"""Replay of texts in stage 2: the loss against the model's own, and what cannot be used."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.errors import ConfigError, DataError
from kvg.modules.text_replay import TextReplay


@pytest.fixture
def cards(tmp_path):
    path = tmp_path / "cards.jsonl"
    path.write_text(json.dumps({"text": "the Hoopoe is orange"}) + "\n")
    return path


def module_of(backbone, step: int = 0):
    return SimpleNamespace(
        backbone=backbone,
        global_step=step,
        global_rank=0,
        trainer=SimpleNamespace(model=backbone),
        manual_backward=lambda loss: loss.backward(),
    )


def test_the_gradient_is_that_of_the_mean_loss_of_the_texts_times_the_weight(cards):
    backbone = Backbone("tiny", max_pixels=None)
    loss = TextReplay(str(cards), rows=2, weight=0.5).backward(module_of(backbone))
    weight = next(p for p in backbone.parameters() if p.grad is not None)
    gradient = weight.grad.clone()
    backbone.zero_grad()
    processor = backbone.processor
    batch = processor.collate([processor.encode_text(None, "the Hoopoe is orange")], [])
    ids, labels = batch.input_ids, batch.labels
    logits = backbone.model(input_ids=ids).logits[0, :-1].float()  # transformers' own forward pass
    expected = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100)
    (0.5 * expected).backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-6)


def test_texts_depend_on_the_step_and_not_on_what_was_before(tmp_path):
    path = tmp_path / "cards.jsonl"
    path.write_text("".join(json.dumps({"text": "a " * n}) + "\n" for n in range(1, 9)))
    backbone = Backbone("tiny", max_pixels=None)
    losses = [float(TextReplay(str(path), rows=1).backward(module_of(backbone, step))) for step in (0, 1, 2, 3, 1)]
    assert losses[1] == losses[4]
    assert len({*losses}) > 1


def test_what_cannot_be_used_is_named(tmp_path, cards):
    with pytest.raises(DataError, match="does not exist"):
        TextReplay(str(tmp_path / "none"))
    empty = tmp_path / "empty"
    empty.write_text("")
    with pytest.raises(DataError, match="contains no line"):
        TextReplay(str(empty))
    empty.write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match="empty line 1"):
        TextReplay(str(empty))
    with pytest.raises(ConfigError, match="weight"):
        TextReplay(str(cards), weight=0.0)
