"""The memory that a training takes on a CPU, from every allocation that torch's profiler records.

    python -m tests.planning.measured SETTINGS.json

runs one process of a training and prints its peak in bytes. Not the size of the process: the Python heap, libraries and
freed pages are no part of a plan.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.losses.family import GRPOLoss
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.grpo import GRPOModule
from kvg.modules.sharding import FSDP2Strategy
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward

STEPS = 2  # the first one makes the optimizer's state and DDP's lasting messages


class Constant(Reward):
    """Something that differs within a group."""

    def __call__(self, answers, samples):
        return torch.arange(len(answers)) % 2 / 2.0


def held(tensors) -> int:
    """Bytes of the memory behind tensors, each counted once."""
    storages = {}
    for tensor in tensors:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storages[local.untyped_storage()._cdata] = local.untyped_storage().nbytes()
    return sum(storages.values())


class Peak(Callback):
    """Records all allocations of all steps.

    The profiler does not see that memory is freed which was there before it began. So it begins before there are
    gradients, moments of AdamW or DDP's lasting messages, and weights alone are counted as there.
    """

    def __init__(self):
        self.base = self.peak = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx:
            return
        models = [module.backbone, *getattr(module, "_reference", [])]
        self.base = held(t for model in models for t in (*model.parameters(), *model.buffers()))
        self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.profiler.__enter__()

    def on_train_end(self, trainer, module):
        self.profiler.__exit__(None, None, None)
        events = self.profiler.profiler.kineto_results.events()
        moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        total = highest = 0
        for _, size in moves:
            total += size
            highest = max(highest, total)
        self.peak = self.base + highest


class Repeated(L.LightningDataModule):
    """The same batch again and again."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        return torch.utils.data.DataLoader([self.batch] * STEPS, batch_size=None)


def run(settings: dict, make_batch, make_backbone=Backbone) -> int:
    """Trains for two steps; returns their peak.

    Args:
        settings: ``stage``, ``backbone``, ``strategy``, ``processes``, ``precision``, and arguments of the stage.
        make_batch: of the backbone's processor.
        make_backbone: makes the model.
    """
    torch.manual_seed(0)
    own = dict(settings["backbone"])
    if own.get("lora"):
        own["lora"] = LoRASettings(**own["lora"])
    backbone = make_backbone(**own)
    adamw = partial(torch.optim.AdamW, lr=1e-6, fused=True)
    options = {"export": False, "max_new_tokens": settings["max_new_tokens"]}
    if settings["stage"] == "sft":
        module = CoTSFTModule(backbone, adamw, **options)
    else:
        backbone.end_token_ids = ()  # so that each completion is as long as it may be
        reward = WeightedReward({"constant": Constant()})
        names = ("group_size", "microbatch_size", "num_minibatches")
        given = {name: settings[name] for name in names if name in settings}
        module = GRPOModule(backbone, reward, GRPOLoss(beta=settings.get("beta", 0.04)), adamw, **options, **given)
    strategies = {"single": "auto", "ddp": "ddp", "fsdp2": FSDP2Strategy(gather=settings.get("gather", "layer"))}
    peak = Peak()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=settings["processes"],
        strategy=strategies[settings["strategy"]],
        precision=settings["precision"],
        max_steps=STEPS * settings.get("num_minibatches", 1),
        max_epochs=1,
        accumulate_grad_batches=settings.get("accumulate", 1),
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[peak],
    )
    trainer.fit(module, Repeated(make_batch(backbone.processor)))
    return peak.peak


if __name__ == "__main__":
    from tests.planning.batches import full_batch

    settings = json.loads(Path(sys.argv[1]).read_text())
    print("PEAK", run(settings, partial(full_batch, settings)))
