"""What tests of real vLLM share, be it a server or in the process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lightning as L
import torch

from data_modules import GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.batches import Batch
from kvg.inference.rollout_engine import BuiltInEngine, RolloutEngine
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rl.completions import Rollouts
from kvg.rl.sampling import SamplingSettings

NUM, CLOSE = 20, 4e-3  # prompts; nats between two implementations in float32
GREEDY, SAMPLED = SamplingSettings(160, 0.0), SamplingSettings(64, 1.0)
LORA = LoRASettings(r=8)
SIZES = [(140, 140), (201, 150), (112, 196), (300, 500)]  # the last two are resized


class Letters(Reward):
    """Differs within every group."""

    def __call__(self, answers, samples):
        return torch.tensor([float(sum(map(ord, answer.completion.text)) % 97) for answer in answers])


def prompts(backbone: Backbone, samples: list) -> Batch:
    """Of both prompt modes by turns."""
    examples = [
        backbone.processor.encode(s, mode=("think", "direct")[n % 2], target=None) for n, s in enumerate(samples)
    ]
    return backbone.processor.collate(examples, samples, pad_left=True)


def sample(
    engine: RolloutEngine, backbone: Backbone, batch: Batch, settings: SamplingSettings, group: int = 1, seed: int = 0
) -> Rollouts:
    with torch.no_grad():
        return engine.sample(backbone.eval(), batch, settings, group, torch.Generator().manual_seed(seed))


def greedy_alike(engine: RolloutEngine, backbone: Backbone, batch: Batch) -> Rollouts:
    """Answers and log-probabilities of an engine are those of the built-in one, which are returned."""
    ours, theirs = (sample(one, backbone, batch, GREEDY) for one in (BuiltInEngine(), engine))
    torch.testing.assert_close(theirs.tokens, ours.tokens)
    torch.testing.assert_close(theirs.completion_mask, ours.completion_mask)
    torch.testing.assert_close(theirs.truncated, ours.truncated)
    torch.testing.assert_close(theirs.logprobs, ours.logprobs, atol=CLOSE, rtol=0)
    return ours


def sampled_alike(engine: RolloutEngine, backbone: Backbone, batch: Batch) -> None:
    """Samples follow the seed, differ within a group, and have the log-probabilities that the backbone gives them."""
    first, again, other = (sample(engine, backbone, batch, SAMPLED, 4, seed) for seed in (0, 0, 1))
    assert first.tokens.shape[0] == 4 * len(batch)
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens[:, :8], other.tokens[:, :8])
    assert any(not torch.equal(first.tokens[0], row) for row in first.tokens[1:4])
    own, _ = backbone.completion_logprobs(batch, first.tokens, first.completion_mask)
    torch.testing.assert_close(own, first.logprobs, atol=CLOSE, rtol=0)
    warm = sample(engine, backbone, batch, SamplingSettings(64, 1.7), 2)
    own, _ = backbone.completion_logprobs(batch, warm.tokens, warm.completion_mask, temperature=1.7)
    torch.testing.assert_close(own, warm.logprobs, atol=CLOSE, rtol=0)


def moved(backbone: Backbone) -> Backbone:
    """A backbone as after an update, with other answers."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad:
                parameter += (0.05 if "lora_" in name else 0.01) * torch.randn_like(parameter)
    return backbone


def trained(engine: RolloutEngine, backbone: Backbone, shards: Path, folder: Path) -> None:
    """Three steps of stage 2, after which the engine has the weights of the last step but one."""
    module = GRPOModule(
        backbone,
        WeightedReward({"letters": Letters()}),
        GRPOLoss(beta=0.0),
        partial(torch.optim.AdamW, lr=1e-3),
        group_size=4,
        max_new_tokens=48,
        export=False,
        engine=engine,
    )
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, use_distributed_sampler=False,
    )  # fmt: skip
    data = GRPODataModule(shards, mode="think", batch_size=4)
    data.connect(module.backbone)
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert abs(logged["train/mismatch/kl"]) < CLOSE
    assert logged["train/mismatch/ess"] > 0.999
    assert abs(logged["train/mismatch/ratio_max"] - 1) < 0.05
