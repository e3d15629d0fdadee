"""Checkpoints hold what is trained, and a run that goes on from one ends in the weights of a whole run."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils._pytree import tree_leaves

from data_modules import CoTSFTDataModule, GRPODataModule
from kvg.backbones.lora import LoRASettings
from kvg.modules.cot_sft import CoTSFTModule
from tests.modules.stage_2 import SMALL, SPACES, grpo

KINDS = {
    "whole": {"freeze_vision": False, "freeze_projector": False},
    "frozen tower": {},
    "merger": {"freeze_language": True, "freeze_projector": False},
    "no embeddings": {"freeze_embeddings": True},
    "all adapters": {"lora": LoRASettings(r=4, rslora=True, dora=True, tokens=(3, 40))},
}


def resumed(run, folder):
    """State dicts of three steps, and of two and a third after a checkpoint; and the checkpoint."""
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=2, save_top_k=-1)
    whole = run(3, callbacks=[saving], enable_checkpointing=True).state_dict()
    again = run(3, ckpt_path=folder / "step=2.ckpt")
    return whole, again.state_dict(), torch.load(folder / "step=2.ckpt", weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
def test_stage_1_goes_on_from_what_was_trained(kind, fit, tiny, adamw, two, tmp_path):
    def run(steps, **settings):
        module = CoTSFTModule(tiny(**KINDS[kind]), adamw(1e-2), 0.0, "constant", export=False)
        fit(module, CoTSFTDataModule(two, batch_size=2), steps, **settings)
        return module

    whole, again, saved = resumed(run, tmp_path)
    backbone = tiny(**KINDS[kind])
    named = backbone.named_parameters(remove_duplicate=False)
    assert saved["state_dict"].keys() == {f"backbone.{name}" for name, p in named if p.requires_grad}
    assert saved["kvg_run"]["base"] == ("" if kind == "whole" else "name:tiny")
    assert again.keys() == whole.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    start = backbone.state_dict()
    assert any(not torch.equal(value, start[name.removeprefix("backbone.")]) for name, value in again.items())


def test_stage_2_goes_on_from_adapters(fit, tiny, adamw, two, tmp_path):
    def run(steps, **settings):
        module = grpo(tiny(**KINDS["all adapters"]), SPACES, adamw(1e-2), beta=0.1, group_size=4, **SMALL)
        fit(module, GRPODataModule(two, batch_size=2), steps, **settings)
        return module

    whole, again, saved = resumed(run, tmp_path)
    assert saved["state_dict"]
    assert all("lora_" in n or "trainable_tokens" in n for n in saved["state_dict"])
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


COMPILED = pytest.param("torchao.optim", marks=pytest.mark.slow)  # minutes


@pytest.mark.parametrize("name", ["bitsandbytes.optim", COMPILED])
def test_moments_in_8_bits_come_back(name, fit, tiny, two, tmp_path):
    kind = pytest.importorskip(name).AdamW8bit

    def run(steps, **settings):
        module = CoTSFTModule(tiny(freeze_vision=False), partial(kind, lr=1e-3), 0.0, "constant", export=False)
        fit(module, CoTSFTDataModule(two, batch_size=2), steps, **settings)
        return module

    whole, again, saved = resumed(run, tmp_path)
    kept = [value for value in tree_leaves(saved["optimizer_states"]) if torch.is_tensor(value)]
    assert any(value.dtype == torch.uint8 or "8bit" in type(value).__name__ for value in kept)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
