from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from data_modules import GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.combine import WeightedReward
from tests.modules.overlap import Letters


class Recorder(Callback):
    """Keeps what was logged at every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def __getitem__(self, name):
        return [step[name] for step in self.steps]


@pytest.fixture
def fit(tmp_path):
    """Trains a module for some steps and returns what was logged."""

    def run(module, data, steps, **settings) -> Recorder:
        L.seed_everything(0, verbose=False)
        recorder = Recorder()
        origin = {"ckpt_path": settings.pop("ckpt_path", None), "weights_only": True}
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            max_epochs=settings.pop("max_epochs", -1),
            use_distributed_sampler=False,
            default_root_dir=tmp_path,
            enable_model_summary=False,
            callbacks=[recorder, *settings.pop("callbacks", [])],
            **{**quiet, **settings},
        )
        data.connect(module.backbone)
        trainer.fit(module, data, **origin)
        return recorder

    return run


@pytest.fixture
def tiny():
    return partial(Backbone, "tiny")


@pytest.fixture
def adamw():
    return lambda lr: partial(torch.optim.AdamW, lr=lr, weight_decay=0.0)


@pytest.fixture(scope="session")
def two(tmp_path_factory, lab_shards):
    """A set of two samples with small pictures."""
    return lab_shards(tmp_path_factory.mktemp("two") / "set", 2, sizes=[(84, 84)], snap_px=None)


@pytest.fixture(scope="session")
def eight(tmp_path_factory, lab_shards):
    """A set of eight samples whose texts differ in length."""
    return lab_shards(tmp_path_factory.mktemp("eight") / "set", 8, sizes=[(84, 84)], snap_px=None)


@pytest.fixture
def train(fit, two):
    def run(module, steps, **settings):
        return fit(module, GRPODataModule(two, mode="direct", batch_size=2), steps, **settings)

    return run


@pytest.fixture
def ahead(fit, tiny, eight, adamw):
    """A run that samples ahead, over four batches of two prompts an epoch."""

    def start(steps: int, engine: Any = None, loss: Any = None, rewards=Letters, backbone=None, lr=1e-2, **settings):
        trainer = {name: settings.pop(name) for name in ("callbacks", "precision") if name in settings}
        module = GRPOModule(
            backbone or tiny(),
            WeightedReward({"letters": rewards()}),
            loss or GRPOLoss(beta=0.0),
            adamw(lr),
            **{"group_size": 2, "max_new_tokens": 6, "overlap": True, "export": False, "engine": engine, **settings},
        )
        return module, fit(module, GRPODataModule(eight, mode="direct", batch_size=2), steps, **trainer)

    return start
