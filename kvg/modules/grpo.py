"""Stage 2: GRPO. A group of answers per prompt, rewards by IoU, advantages within the group, one update."""

from __future__ import annotations

import copy
import time
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from kvg.backbones.base import Backbone
from kvg.errors import ConfigError
from kvg.losses.policy import grpo_loss
from kvg.masking import masked_mean
from kvg.modules.base import StageModule
from kvg.rewards.combine import WeightedReward
from kvg.rl.advantage import group_advantage
from kvg.rl.rollout import Rollouts, SamplingSettings, rollout
from kvg.types import Batch, Sample


class GRPOModule(StageModule):
    """The paper's stage 2 (section 4.2): group-relative policy optimization from the stage-1 model.

    Args:
        backbone: the stage-1 model.
        reward: weighted parts; each is logged on its own.
        optimizer: see ``StageModule``.
        warmup: see ``StageModule``.
        schedule: see ``StageModule``.
        group_size: G, rollouts per prompt.
        temperature: of the rollouts.
        top_p: of the rollouts.
        max_new_tokens: longest completion, in rollouts and in evaluation.
        beta: weight of the KL to the frozen stage-1 model; 0 keeps no reference.
        clip_eps: half-width of the clipped ratio.
        normalise: ``sequence`` (v2) or ``token`` (v3), see ``kvg.losses.policy.grpo_loss``.
        advantage: ``group_std`` (published), ``batch_std`` or ``none``.
        mode: prompt mode.
        seed: of the rollouts.
        export: see ``StageModule``.
    """

    def __init__(
        self,
        backbone: Backbone,
        reward: WeightedReward,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.0,
        schedule: Literal["cosine", "constant"] = "constant",
        group_size: int = 4,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 512,
        beta: float = 0.04,
        clip_eps: float = 0.2,
        normalise: Literal["sequence", "token"] = "sequence",
        advantage: Literal["group_std", "batch_std", "none"] = "group_std",
        mode: str = "think",
        seed: int = 0,
        export: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer, warmup, schedule, mode, max_new_tokens, export)
        if group_size < 1:
            raise ConfigError("model.group_size", f"{group_size} must be at least 1; groups of 1 learn nothing")
        if temperature <= 0:
            raise ConfigError("model.temperature", f"{temperature} must be above 0: greedy rollouts are all alike")
        self.reward, self.group_size, self.beta, self.clip_eps = reward, group_size, beta, clip_eps
        self.normalise: Literal["sequence", "token"] = normalise
        self.advantage: Literal["group_std", "batch_std", "none"] = advantage
        self.seed = seed
        self.rollout_sampling = SamplingSettings(max_new_tokens, temperature, top_p)
        self._reference: list[Backbone] = []  # in a list, so that it is no part of the module's state

    def configure_model(self) -> None:
        """Keeps the stage-1 model as the reference before anything is sharded or loaded."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting and self.beta and self.backbone.lora is None and not self._reference:
            reference = copy.deepcopy(self.backbone).requires_grad_(False).eval()
            if self.device_mesh is not None:
                reference.shard(self.device_mesh["data_parallel"])
            self._reference.append(reference)
        super().configure_model()

    def on_fit_start(self) -> None:
        """Moves the reference beside the policy."""
        for reference in self._reference:
            reference.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Samples, scores and learns from one batch of prompts."""
        start = time.perf_counter()
        self.backbone.eval()
        generator = torch.Generator(device=self.device)
        generator.manual_seed(self.seed + 1_000_003 * self.global_step + 7919 * self.global_rank + 13 * batch_idx)
        out = rollout(self.backbone, batch, self.rollout_sampling, self.group_size, generator)
        self.backbone.train()
        sampled = time.perf_counter()
        rewards, breakdown, texts = self._rewards(batch, out)
        advantages = group_advantage(rewards, self.group_size, self.advantage)
        temperature = self.rollout_sampling.temperature
        reference = self._reference_logprobs(batch, out)
        logprobs, entropy = self.backbone.completion_logprobs(batch, out.tokens, out.completion_mask, temperature)
        loss, stats = grpo_loss(
            logprobs,
            logprobs.detach(),
            reference,
            advantages.to(logprobs.device),
            out.completion_mask,
            clip_eps=self.clip_eps,
            beta=self.beta,
            normalise=self.normalise,
        )
        self._log_step(batch, out, rewards, breakdown, texts)
        size = len(batch["samples"])
        self.log("train/loss", loss, batch_size=size)
        self.log("train/kl", stats["kl"], batch_size=size)
        self.log("train/entropy", masked_mean(entropy, out.completion_mask), batch_size=size)
        self.log("train/advantage_std", advantages.std(), batch_size=size)
        self.log("train/sample_s", sampled - start, batch_size=size)
        seconds = time.perf_counter() - start
        self.log("train/tokens_per_s", float(out.completion_mask.sum()) / seconds, batch_size=size)
        return loss

    def _rewards(self, batch: Batch, out: Rollouts) -> tuple[Tensor, dict[str, Tensor], list[str]]:
        texts = self.decode(out.tokens, out.completion_mask)
        samples: list[Sample] = [s for s in batch["samples"] for _ in range(self.group_size)]
        sizes = [self.backbone.processor.image_size(s.width, s.height) for s in samples]
        total, breakdown = self.reward(texts, samples, self.backbone.codec, sizes)
        return total, breakdown, texts

    @torch.no_grad()
    def _reference_logprobs(self, batch: Batch, out: Rollouts) -> Tensor | None:
        if not self.beta:
            return None
        temperature = self.rollout_sampling.temperature
        if self._reference:
            return self._reference[0].completion_logprobs(batch, out.tokens, out.completion_mask, temperature)[0]
        with self.backbone.base_weights():
            return self.backbone.completion_logprobs(batch, out.tokens, out.completion_mask, temperature)[0]

    def _log_step(
        self, batch: Batch, out: Rollouts, rewards: Tensor, breakdown: dict[str, Tensor], texts: list[str]
    ) -> None:
        size = len(batch["samples"])
        groups = rewards.view(-1, self.group_size)
        samples = [s for s in batch["samples"] for _ in range(self.group_size)]
        unparsed = sum(self.read_box(t, s) is None for t, s in zip(texts, samples, strict=True)) / len(texts)
        values: dict[str, Any] = {
            "train/reward/total": rewards.mean(),
            **{f"train/reward/{name}": part.mean() for name, part in breakdown.items()},
            "train/reward_std_in_group": groups.std(dim=1).mean() if self.group_size > 1 else torch.tensor(0.0),
            "train/equal_groups": (groups == groups[:, :1]).all(dim=1).float().mean(),
            "train/completion_length": out.completion_mask.sum(1).float().mean(),
            "train/truncated": out.truncated.float().mean(),
            "train/unparsed": unparsed,
        }
        for name, value in values.items():
            self.log(name, value, batch_size=size, prog_bar=name == "train/reward/total")
